"""The join as a Beam pipeline: Arrow in file buckets by user.

Splitting writes each log file's rows to shard files by user, and only their paths go through Beam's shuffle. A shard is
joined by one vectorised call, its examples go to files again, and each file of a day's examples is gathered and sorted
by the hash of the impression. So the bytes of a day depend neither on the number of shards nor on the runner, and
rewriting any file after a retry changes nothing.
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
from apache_beam.pvalue import AsSingleton, TaggedOutput

from components.common import parquet_files, storage
from components.common.days import MICROSECONDS_PER_DAY, microseconds
from components.common.digests import digest_json
from components.common.errors import InputError
from components.common.manifests import describe_file, finish_directory, verified_content
from components.features.engagement import SCHEMA, count_engagement, merge_engagement, taken_back
from components.features.events import ACTIONS, IMPRESSIONS, LOG_NAMES, arrow_type
from components.features.examples import EVALUATION, LABELS, NEGATIVE_KEPT, ExamplesManifest
from components.features.hashing import hash_identifiers
from components.features.log_events import Events
from components.join import shards
from components.join.assemble import Seen, join_shard, repeats_of
from components.join.plan import ExamplesFile, JoinPlan, LogFile, Piece

METRICS_NAMESPACE = "afterclick.join"
_ENGAGEMENT = "engagement"
_RECEIVED = "received"


class SplitFile(beam.DoFn):
    """Splits one log file by user, a batch of rows at a time; also counts its engagement."""

    def __init__(self, plan: JoinPlan) -> None:
        """Follow `plan`."""
        self._plan = plan

    def process(self, log_file: LogFile) -> Iterator[Any]:
        """Yield (shard, (log, path)) and, tagged, the file's engagement counts.

        The paths' order is that of the log, wherever the store lies.
        """
        uri, content = verified_content(log_file.directory, log_file.entry)
        day, name = (posixpath.basename(path) for path in (log_file.directory, log_file.entry.name))
        job, rows_each = self._plan.job, self._plan.job.config.rows_per_shard
        for part, table in enumerate(parquet_files.read_parquet_batches(uri, rows_each, content=content)):
            if job.features is not None:
                counted = count_engagement(log_file.log_name, Events.of(table), job.features.engagement.entities)
                yield TaggedOutput(_ENGAGEMENT, counted)
            for number, rows in shards.split_by_user(table, self._plan.num_shards):
                file = f"{log_file.log_name}-{day}-{name}-{part:06d}.arrow"
                shard_uri = self._plan.scratch(f"shard-{number:04d}", file)
                shards.write_groups(shard_uri, rows, np.zeros(len(rows), dtype=np.int64))
                yield number, (log_file.log_name, shard_uri)


class TakeBackRepeats(beam.DoFn):
    """Takes one shard's repeats out of the engagement that its files were counted with."""

    def __init__(self, plan: JoinPlan) -> None:
        """Follow `plan`."""
        self._plan = plan

    def process(self, element: tuple[int, Iterable[tuple[str, str]]]) -> Iterator[pa.Table]:
        """Yield counts to be added, if the shard has any repeats."""
        features = self._plan.job.features
        assert features is not None
        for name, table in _read_shard(self._plan, element[1]).items():
            repeats = repeats_of(table, name)
            if repeats.num_rows:
                yield taken_back(count_engagement(name, Events.of(repeats), features.engagement.entities))


class MergeEngagement(beam.CombineFn):
    """Adds up engagement counts."""

    def create_accumulator(self) -> pa.Table:
        """No counts."""
        return merge_engagement([])

    def add_input(self, total: pa.Table, part: pa.Table) -> pa.Table:
        """Add one file's counts."""
        return merge_engagement([total, part])

    def merge_accumulators(self, parts: Iterable[pa.Table]) -> pa.Table:
        """Add up partial sums."""
        return merge_engagement(list(parts))

    def extract_output(self, total: pa.Table) -> pa.Table:
        """The sums."""
        return total


class WriteEngagement(beam.DoFn):
    """Writes the sums to a file that every shard reads, so that they are not copied to every worker."""

    def __init__(self, plan: JoinPlan) -> None:
        """Follow `plan`."""
        self._plan = plan

    def process(self, total: pa.Table) -> Iterator[str]:
        """Yield the file."""
        uri = self._plan.scratch("engagement.arrow")
        shards.write_groups(uri, total, np.zeros(len(total), dtype=np.int64))
        yield uri


class JoinShard(beam.DoFn):
    """Joins one shard of users."""

    def __init__(self, plan: JoinPlan) -> None:
        """Follow `plan`."""
        self._plan = plan

    def process(self, element: tuple[int, Iterable[tuple[str, str]]], engagement_uri: str | None) -> Iterator[Any]:
        """Yield ((day, file), Piece) for the job's days, and, tagged, how many rows were received."""
        number, job, logs = element[0], self._plan.job, _read_shard(self._plan, element[1])
        engagement = shards.read_arrow(engagement_uri) if engagement_uri else SCHEMA.empty_table()
        result = join_shard(logs[IMPRESSIONS], logs[ACTIONS], engagement, job)
        for name, value in result.counts.items():
            Metrics.counter(METRICS_NAMESPACE, name).inc(value)
        yield TaggedOutput(_RECEIVED, (logs[IMPRESSIONS].num_rows, logs[ACTIONS].num_rows))
        yield from self._write(number, result.examples, result.by_day)

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


def _read_shard(plan: JoinPlan, files: Iterable[tuple[str, str]]) -> dict[str, pa.Table]:
    """Each log of a shard in the log's order, in the same types whether the shard has any rows or values."""
    paths = sorted(files)
    logs = {}
    for log_name in LOG_NAMES:
        types = plan.identifiers[log_name]
        columns = plan.job.dataset.columns(log_name)
        schema = pa.schema([(c.name, types.get(c.name) or arrow_type(c, pa.int64())) for c in columns])
        parts = [shards.read_arrow(path).cast(schema) for name, path in paths if name == log_name]
        logs[log_name] = pa.concat_tables(parts) if parts else schema.empty_table()
    return logs


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

    def process(self, element: tuple[str, Iterable[ExamplesFile]], received: tuple[int, int]) -> Iterator[str]:
        """Yield the day when its examples are there for readers.

        Raises:
            RuntimeError: If the runner lost or repeated rows; the day has no examples then.
            InputError: If too many of the day's impression ids were used before.
        """
        day, files = date.fromisoformat(element[0]), sorted(element[1], key=lambda file: (file.split, file.entry.name))
        if received != self._plan.expected:
            raise RuntimeError(
                f"join: {received} impressions and actions reached the join, {self._plan.expected} were read; use "
                "another Beam runner"
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
class JoinExamples(beam.PTransform):
    """From clean log files to the days whose examples were written."""

    plan: JoinPlan

    def expand(self, files: beam.PCollection[LogFile]) -> beam.PCollection[str]:
        """Split, join, gather, finish."""
        split = files | beam.Reshuffle() | beam.ParDo(SplitFile(self.plan)).with_outputs(_ENGAGEMENT, main="shards")
        by_shard = split["shards"] | "ByShard" >> beam.GroupByKey()
        if self.plan.job.features is None:
            engagement = None
        else:
            counted = (split[_ENGAGEMENT], by_shard | beam.ParDo(TakeBackRepeats(self.plan))) | beam.Flatten()
            merged = counted | beam.CombineGlobally(MergeEngagement())
            engagement = AsSingleton(merged | beam.ParDo(WriteEngagement(self.plan)))
        joined = by_shard | beam.ParDo(JoinShard(self.plan), engagement).with_outputs(_RECEIVED, main="pieces")
        received = joined[_RECEIVED] | beam.CombineGlobally(_add_pairs)
        return (
            joined["pieces"]
            | "ByFile" >> beam.GroupByKey()
            | beam.ParDo(WriteExamples(self.plan))
            | "ByDay" >> beam.GroupByKey()
            | beam.ParDo(FinishDay(self.plan), AsSingleton(received))
        )


def _add_pairs(pairs: Iterable[tuple[int, int]]) -> tuple[int, int]:
    listed = list(pairs)
    return sum(first for first, _ in listed), sum(second for _, second in listed)
