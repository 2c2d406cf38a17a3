"""The join as a Beam pipeline: Arrow in file buckets by user.

Splitting writes each log file's rows to bucket files on the store, and only their paths go through Beam's shuffle; a
bucket is then joined by one vectorised call. Rewriting a bucket file after a retry changes nothing.
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

from components.common import storage
from components.common.days import MICROSECONDS_PER_DAY, microseconds
from components.common.digests import digest_bytes
from components.common.errors import InputError
from components.common.events import ACTIONS, IMPRESSIONS, DatasetConfig, arrow_type
from components.common.examples import EVALUATION, LABELS, NEGATIVE_KEPT, TRAINING
from components.common.hashing import hash_identifiers
from components.common.layout import EXAMPLES_FILE, EXAMPLES_KIND, Store
from components.common.manifests import Manifest, write_artifact
from components.join.assemble import JoinJob, join_shard
from components.join.attribution import Events
from components.join.engagement import count_engagement, merge_engagement

METRICS_NAMESPACE = "afterclick.join"
_ENGAGEMENT = "engagement"
_RECEIVED = "received"


@dataclass(frozen=True)
class LogFile:
    """One clean Parquet file."""

    table: str
    uri: str


@dataclass(frozen=True)
class DayOutput:
    """What the examples of one day are made from.

    Attributes:
        inputs: Digests for the manifest.
        settings: Settings for the manifest.
        with_evaluation: Whether they are also written without down-sampling.
        num_impressions: Clean impressions of the day, each of which must be accounted for.
    """

    inputs: dict[str, str]
    settings: dict[str, Any]
    with_evaluation: bool
    num_impressions: int


def write_arrow(uri: str, table: pa.Table) -> None:
    """Write an Arrow IPC file."""
    fs, path = storage.filesystem(uri)
    fs.makedirs(posixpath.dirname(path), exist_ok=True)
    with fs.open(path, "wb") as stream, pa.ipc.new_file(stream, table.schema) as writer:
        writer.write_table(table)


def read_arrow(uri: str) -> pa.Table:
    """Read an Arrow IPC file."""
    return pa.ipc.open_file(storage.read_bytes(uri)).read_all()


class SplitFile(beam.DoFn):
    """Splits one log file by user; also counts its engagement."""

    def __init__(self, job: JoinJob, scratch_uri: str) -> None:
        """Write buckets under `scratch_uri`."""
        self._job, self._scratch_uri = job, scratch_uri

    def process(self, log_file: LogFile) -> Iterator[Any]:
        """Yield (bucket, (table, path)) and, tagged, the file's engagement counts."""
        table = storage.read_parquet(log_file.uri)
        visible = table["timestamp"].cast(pa.int64()).to_numpy() < microseconds(self._job.as_of)
        table = table.filter(pa.array(visible))
        yield TaggedOutput(_ENGAGEMENT, self._count(log_file.table, table))
        if not table.num_rows:
            return
        buckets = hash_identifiers(table["user_id"]) % np.uint64(self._job.config.num_buckets)
        order = np.argsort(buckets, kind="stable")
        table, buckets = table.take(pa.array(order)), buckets[order]
        numbers, starts = np.unique(buckets, return_index=True)
        for number, start, stop in zip(numbers, starts, [*starts[1:], len(buckets)], strict=True):
            name = f"{log_file.table}-{digest_bytes(log_file.uri.encode())[:16]}.arrow"
            uri = storage.join_uri(self._scratch_uri, f"bucket-{number:04d}", name)
            write_arrow(uri, table.slice(start, stop - start).combine_chunks())
            yield int(number), (log_file.table, uri)

    def _count(self, name: str, table: pa.Table) -> pa.Table:
        return count_engagement(name, Events.of(table), self._job.dataset.entities)


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


class JoinBucket(beam.DoFn):
    """Joins one bucket of users and writes its examples by day."""

    def __init__(self, job: JoinJob, scratch_uri: str) -> None:
        """Write examples under `scratch_uri`."""
        self._job, self._scratch_uri = job, scratch_uri

    def process(self, element: tuple[int, Iterable[tuple[str, str]]], engagement: pa.Table) -> Iterator[Any]:
        """Yield (day, path) for every day of the job, and, tagged, how many rows were received."""
        number, files = element
        paths = sorted(files)
        impressions = [read_arrow(path) for table, path in paths if table == IMPRESSIONS]
        actions = [read_arrow(path) for table, path in paths if table == ACTIONS]
        like = (impressions or actions)[0].schema.field("user_id").type
        result = join_shard(
            _concatenate(impressions, IMPRESSIONS, self._job.dataset, like),
            _concatenate(actions, ACTIONS, self._job.dataset, like),
            engagement,
            self._job,
        )
        self._count(result.counts)
        yield TaggedOutput(_RECEIVED, tuple(sum(part.num_rows for part in parts) for parts in (impressions, actions)))
        ordinals = result.examples["timestamp"].cast(pa.int64()).to_numpy() // MICROSECONDS_PER_DAY
        for event_date in self._job.dataset.open_days(self._job.first_day, self._job.last_day):
            of_day = ordinals == microseconds(event_date) // MICROSECONDS_PER_DAY
            uri = storage.join_uri(self._scratch_uri, f"examples-{event_date}", f"{number:04d}.arrow")
            write_arrow(uri, result.examples.filter(pa.array(of_day)).combine_chunks())
            yield str(event_date), uri

    def _count(self, counts: dict[str, int]) -> None:
        for name, value in counts.items():
            Metrics.counter(METRICS_NAMESPACE, name).inc(value)


def _concatenate(parts: list[pa.Table], name: str, dataset: DatasetConfig, like: pa.DataType) -> pa.Table:
    """One log's parts in a row; without any, an empty table whose identifiers have type `like`."""
    if parts:
        return pa.concat_tables(parts, promote_options="permissive")
    return pa.schema([(column.name, arrow_type(column, like)) for column in dataset.columns(name)]).empty_table()


class WriteDay(beam.DoFn):
    """Gathers one day's examples from all buckets and writes them as finished directories."""

    def __init__(
        self, store_root: str, outputs: dict[str, DayOutput], expected: tuple[int, int], max_duplicate_share: float
    ) -> None:
        """Write into a store; `outputs` by day, `expected` impressions and actions that must have been joined."""
        self._store_root, self._outputs = store_root, outputs
        self._expected, self._max_duplicate_share = expected, max_duplicate_share

    def process(self, element: tuple[str, Iterable[str]], received: tuple[int, int]) -> Iterator[str]:
        """Write the day; yield it.

        Raises:
            RuntimeError: If the runner lost or repeated rows; nothing is written then.
            InputError: If too many of the day's impression ids were used before.
        """
        day, paths = element
        if received != self._expected:
            raise RuntimeError(
                f"join: {received} impressions and actions reached the join, {self._expected} were read; use another "
                "Beam runner"
            )
        table = pa.concat_tables([read_arrow(path) for path in sorted(paths)])
        order = np.argsort(hash_identifiers(table["impression_id"]), kind="stable")
        table = table.take(pa.array(order)).combine_chunks()
        self._check_duplicates(day, table.num_rows)
        positive = (table["clicked"].to_numpy() > 0) | (table["add_to_carts"].to_numpy() > 0)
        positive |= table["checkouts"].to_numpy() > 0
        kept = positive | table[NEGATIVE_KEPT].to_numpy()
        self._count("impressions_kept", int(kept.sum()))
        self._count("impressions_sampled_out", int((~kept).sum()))
        if self._outputs[day].with_evaluation:
            self._write(EVALUATION, day, table)
        self._write(TRAINING, day, table.filter(pa.array(kept)))
        yield day

    def _check_duplicates(self, day: str, num_examples: int) -> None:
        total = self._outputs[day].num_impressions
        if total - num_examples > self._max_duplicate_share * total:
            raise InputError(
                f"impressions of {day}: {total - num_examples} of {total} have an impression_id that was used before, "
                f"more than join.max_duplicate_share = {self._max_duplicate_share}; make ids unique over days"
            )

    def _write(self, split: str, day: str, table: pa.Table) -> None:
        output = self._outputs[day]
        counts = {"rows": table.num_rows} | {name: int((table[name].to_numpy() > 0).sum()) for name in LABELS}
        write_artifact(
            Store(self._store_root).examples(split, date.fromisoformat(day)),
            Manifest(kind=EXAMPLES_KIND, inputs=output.inputs, settings=output.settings, counts=counts),
            lambda staged: storage.write_parquet(storage.join_uri(staged, EXAMPLES_FILE), table),
        )

    def _count(self, name: str, value: int) -> None:
        Metrics.counter(METRICS_NAMESPACE, name).inc(value)


@dataclass
class JoinExamples(beam.PTransform):
    """From clean log files to the days whose examples were written."""

    job: JoinJob
    store_root: str
    scratch_uri: str
    outputs: dict[str, DayOutput]
    expected: tuple[int, int]

    def expand(self, files: beam.PCollection[LogFile]) -> beam.PCollection[str]:
        """Split, join, gather."""
        split = (
            files
            | beam.Reshuffle()
            | beam.ParDo(SplitFile(self.job, self.scratch_uri)).with_outputs(_ENGAGEMENT, main="buckets")
        )
        engagement = split[_ENGAGEMENT] | beam.CombineGlobally(MergeEngagement())
        joined = (
            split["buckets"]
            | "ByBucket" >> beam.GroupByKey()
            | beam.ParDo(JoinBucket(self.job, self.scratch_uri), AsSingleton(engagement)).with_outputs(
                _RECEIVED, main="days"
            )
        )
        received = joined[_RECEIVED] | beam.CombineGlobally(_add_pairs)
        write_day = WriteDay(self.store_root, self.outputs, self.expected, self.job.config.max_duplicate_share)
        return joined["days"] | "ByDay" >> beam.GroupByKey() | beam.ParDo(write_day, AsSingleton(received))


def _add_pairs(pairs: Iterable[tuple[int, int]]) -> tuple[int, int]:
    listed = list(pairs)
    return sum(first for first, _ in listed), sum(second for _, second in listed)
