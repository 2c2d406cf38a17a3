"""The join as a Beam pipeline: Arrow in file buckets by user.

Splitting writes each file's rows grouped by shards of users, and only their places go through Beam's shuffle. Log days
that have no summary get one of the same shards. A shard is joined by one vectorised call, its examples go to files
again, and each file of a day's examples is gathered and sorted by the hash of the impression. So the bytes of a day
depend neither on the number of shards nor on the runner, and rewriting any file after a retry changes nothing.
"""

from __future__ import annotations

import posixpath
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import date
from typing import Any

import apache_beam as beam
import numpy as np
import pyarrow as pa
from apache_beam.metrics import Metrics
from apache_beam.pvalue import AsList, AsSingleton, TaggedOutput

from components.common import parquet_files, storage
from components.common.days import MICROSECONDS_PER_DAY, microseconds
from components.common.digests import digest_json
from components.common.errors import InputError
from components.common.manifests import describe_file, finish_directory, verified_content
from components.features.engagement import EngagementIndex
from components.features.events import ACTIONS, IMPRESSIONS
from components.features.examples import EVALUATION, LABELS, NEGATIVE_KEPT, ExamplesManifest
from components.features.feature_list import FeatureConfig
from components.features.hashing import hash_identifiers
from components.join import shards
from components.join.assemble import Past, Seen, join_shard
from components.join.plan import HISTORY, ExamplesFile, JoinPlan, LogFile, LogPart, Piece
from components.join.read_shard import read_history, read_shard
from components.join.summarise import SummariseShard, WriteEngagement, WriteSummary

METRICS_NAMESPACE = "afterclick.join"
_RECEIVED = "received"


class SplitFile(beam.DoFn):
    """Splits one file by user, a batch of rows at a time."""

    def __init__(self, plan: JoinPlan) -> None:
        """Follow `plan`."""
        self._plan = plan

    def process(self, log_file: LogFile) -> Iterator[tuple[int, LogPart]]:
        """Yield (shard, its rows).

        The files' order is that of the log, wherever the store lies.
        """
        uri, content = verified_content(log_file.directory, log_file.entry)
        day, name = (posixpath.basename(path) for path in (log_file.directory, log_file.entry.name))
        rows_each, num_shards = self._plan.job.config.rows_per_shard, self._plan.num_shards
        for part, table in enumerate(parquet_files.read_parquet_batches(uri, rows_each, content=content)):
            is_hashed = log_file.log_name == HISTORY
            users = table["user"].to_numpy() if is_hashed else hash_identifiers(table["user_id"])
            split_uri = self._plan.scratch("split", f"{log_file.log_name}-{day}-{name}-{part:06d}.arrow")
            for number, batch in shards.write_groups(split_uri, table, shards.shard_numbers(users, num_shards)):
                yield number, LogPart(log_file.log_name, split_uri, batch)


class JoinShard(beam.DoFn):
    """Joins one shard of users."""

    def __init__(self, plan: JoinPlan) -> None:
        """Follow `plan`."""
        self._plan = plan
        self._engagement: EngagementIndex | None = None

    def process(self, element: tuple[int, Iterable[LogPart]], engagement_uri: str | None) -> Iterator[Any]:
        """Yield ((day, file), Piece) for the job's days, and, tagged, how many rows were received."""
        number, job, parts = element[0], self._plan.job, list(element[1])
        logs, past = read_shard(self._plan, parts), None
        if job.features is not None:
            assert engagement_uri is not None
            history = read_history(job.features, parts)
            past = Past(history, frozenset(self._plan.reading.history), self._indexed(engagement_uri, job.features))
        result = join_shard(logs[IMPRESSIONS], logs[ACTIONS], past, job)
        for name, value in result.counts.items():
            Metrics.counter(METRICS_NAMESPACE, name).inc(value)
        received = (logs[IMPRESSIONS].num_rows, logs[ACTIONS].num_rows, 0 if past is None else len(past.actions))
        yield TaggedOutput(_RECEIVED, received)
        yield from self._write(number, result.examples, result.by_day)

    def _indexed(self, engagement_uri: str, features: FeatureConfig) -> EngagementIndex:
        """The engagement of all days, which is the same for every shard."""
        if self._engagement is None:
            self._engagement = EngagementIndex.of(shards.read_arrow(engagement_uri), features.engagement)
        return self._engagement

    def _write(
        self, number: int, examples: pa.Table, by_day: dict[date, Seen]
    ) -> Iterator[tuple[tuple[str, int], Piece]]:
        places = [(day, file) for day, output in self._plan.outputs.items() for file in range(output.num_files)]
        first_place = {day: place for place, (day, file) in enumerate(places) if file == 0}
        identity = hash_identifiers(examples["impression_id"])
        ordinals = examples["timestamp"].cast(pa.int64()).to_numpy() // MICROSECONDS_PER_DAY
        groups = np.zeros(len(examples), dtype=np.int64)
        for day, output in self._plan.outputs.items():
            of_day = ordinals == microseconds(day) // MICROSECONDS_PER_DAY
            groups[of_day] = first_place[day] + shards.file_numbers(identity[of_day], output.num_files)
        uri = self._plan.scratch("joined", f"shard-{number:04d}.arrow")
        batches = dict(shards.write_groups(uri, examples, groups))
        for place, (day, file) in enumerate(places):
            if place in batches or file == 0:
                yield (str(day), file), Piece(uri, batches.get(place), by_day[day] if file == 0 else Seen())


class WriteExamples(beam.DoFn):
    """Gathers one file of a day's examples from all shards, in the order of the impressions' hashes.

    Files are written in their place, where nobody sees them before the day's manifest names them.
    """

    def __init__(self, plan: JoinPlan) -> None:
        """Follow `plan`."""
        self._plan = plan

    def process(self, element: tuple[tuple[str, int], Iterable[Piece]]) -> Iterator[tuple[str, ExamplesFile]]:
        """Yield (day, file) for each split."""
        (day, number), pieces = element[0], sorted(element[1], key=lambda piece: piece.uri)
        parts = [shards.read_group(piece.uri, piece.batch) for piece in pieces if piece.batch is not None]
        table = pa.concat_tables(parts or [shards.read_arrow(pieces[0].uri).slice(0, 0)]).combine_chunks()
        table = table.take(pa.array(np.argsort(hash_identifiers(table["impression_id"]))))
        seen = sum((piece.seen for piece in pieces), Seen())
        for split in self._plan.job.splits(date.fromisoformat(day)):
            rows = table if split == EVALUATION else table.filter(pa.array(_kept(table)))
            folder, name = self._plan.examples(split, date.fromisoformat(day)), f"part-{number:05d}.parquet"
            parquet_files.write_parquet(storage.join_uri(folder, name), rows)
            positives = {label: int((rows[label].to_numpy() > 0).sum()) for label in LABELS}
            yield day, ExamplesFile(split, describe_file(folder, name), rows.num_rows, positives, seen)


def _kept(table: pa.Table) -> np.ndarray:
    """Examples that down-sampling keeps."""
    kept = table[NEGATIVE_KEPT].to_numpy().copy()
    for name in LABELS:
        kept |= table[name].to_numpy() > 0
    return kept


class FinishDay(beam.DoFn):
    """Checks that a day is whole, and writes its manifests."""

    def __init__(self, plan: JoinPlan) -> None:
        """Follow `plan`."""
        self._plan = plan

    def process(self, element: tuple[str, Iterable[ExamplesFile]], received: tuple[int, ...]) -> Iterator[str]:
        """Yield the day when its examples are there for readers.

        Raises:
            RuntimeError: If the runner lost or repeated rows; the day has no examples then.
            InputError: If too many of the day's impression ids were used before.
        """
        day, files = date.fromisoformat(element[0]), sorted(element[1], key=lambda file: (file.split, file.entry.name))
        if received != self._plan.expected:
            raise RuntimeError(
                f"join: {received} impressions, actions and earlier actions reached the join, {self._plan.expected} "
                "were read; use another Beam runner"
            )
        splits = self._plan.job.splits(day)
        self._check_seen(day, sum((file.seen for file in files if file.split == splits[-1]), Seen()))
        for split in splits:
            self._finish(split, day, [file for file in files if file.split == split])
        yield str(day)

    def _check_seen(self, day: date, seen: Seen) -> None:
        output, limit = self._plan.outputs[day], self._plan.job.config.max_duplicate_share
        for name, count, repeated, expected in (
            (IMPRESSIONS, seen.impressions, seen.repeated_impressions, output.num_impressions),
            (ACTIONS, seen.actions, seen.repeated_actions, output.num_actions),
        ):
            if count != expected:
                raise RuntimeError(
                    f"join: {count} {name} of {day} were joined, {expected} were read; use another Beam runner"
                )
            if repeated > limit * count:
                raise InputError(
                    f"{name} of {day}: {repeated} of {count} have an id that was used on the day before, more than "
                    f"join.max_duplicate_share = {limit}; make ids unique over days"
                )

    def _finish(self, split: str, day: date, files: list[ExamplesFile]) -> None:
        job = self._plan.job
        manifest = ExamplesManifest(
            origin=self._plan.outputs[day].origin,
            rows=sum(file.rows for file in files),
            positives={label: sum(file.positives[label] for file in files) for label in LABELS},
            negative_keep_rate=job.config.negative_keep_rate,
            labelling_digest=digest_json([job.dataset.labelling, job.config.sampling]),
        )
        finish_directory(self._plan.examples(split, day), manifest, [file.entry for file in files])


@dataclass
class SplitFiles(beam.PTransform):
    """From clean log files to what each shard of users has of them."""

    plan: JoinPlan

    def expand(self, files: beam.PCollection[LogFile]) -> beam.PCollection[Any]:
        """Split, and group by shard."""
        return files | beam.Reshuffle() | beam.ParDo(SplitFile(self.plan)) | "ByShard" >> beam.GroupByKey()


@dataclass
class SummariseMissingDays(beam.PTransform):
    """From what each shard has to the days whose summaries were made."""

    plan: JoinPlan

    def expand(self, by_shard: beam.PCollection[Any]) -> beam.PCollection[str]:
        """Summarise each shard, then write each day from all of them."""
        missing = [(str(day), None) for day in self.plan.reading.missing]
        days = by_shard.pipeline | "Missing" >> beam.Create(missing, reshuffle=False)
        if not missing:
            return days | beam.Map(lambda pair: pair[0])
        pieces = by_shard | beam.ParDo(SummariseShard(self.plan))
        return (days, pieces) | beam.Flatten() | "ByMissing" >> beam.GroupByKey() | beam.ParDo(WriteSummary(self.plan))


@dataclass
class JoinExamples(beam.PTransform):
    """From clean log files to the days whose examples were written."""

    plan: JoinPlan

    def expand(self, files: beam.PCollection[LogFile]) -> beam.PCollection[str]:
        """Split, summarise what is missing, join, gather, finish."""
        by_shard = files | SplitFiles(self.plan)
        engagement = None
        if self.plan.job.features is not None:
            made = AsList(by_shard | SummariseMissingDays(self.plan))
            start = files.pipeline | "Window" >> beam.Create([None])
            engagement = AsSingleton(start | beam.ParDo(WriteEngagement(self.plan), made))
        joined = by_shard | beam.ParDo(JoinShard(self.plan), engagement).with_outputs(_RECEIVED, main="pieces")
        received = joined[_RECEIVED] | beam.CombineGlobally(_add_up)
        return (
            joined["pieces"]
            | "ByFile" >> beam.GroupByKey()
            | beam.ParDo(WriteExamples(self.plan))
            | "ByDay" >> beam.GroupByKey()
            | beam.ParDo(FinishDay(self.plan), AsSingleton(received))
        )


def _add_up(counts: Iterable[tuple[int, ...]]) -> tuple[int, ...]:
    return tuple(map(sum, zip((0, 0, 0), *counts, strict=True)))
