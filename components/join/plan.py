"""What one run of the join makes from what, and what passes between its stages."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date

import pyarrow as pa

from components.common import storage
from components.common.layout import Store
from components.common.manifests import FileEntry, Origin
from components.join.assemble import JoinJob, Seen
from components.join.summaries import Reading

HISTORY = "history"


@dataclass(frozen=True)
class LogFile:
    """One Parquet file: of a clean log, or, as `HISTORY`, the hashed actions of a day's summary."""

    log_name: str
    directory: str
    entry: FileEntry


@dataclass(frozen=True, order=True)
class LogPart:
    """Rows of one log, or of `HISTORY`, that are of one shard: a record batch of an Arrow file."""

    log_name: str
    uri: str
    batch: int


@dataclass(frozen=True)
class DayOutput:
    """What the examples of one day are made from.

    Attributes:
        origin: Of the manifest.
        num_impressions: Clean impressions of the day, each of which must be accounted for.
        num_actions: Clean actions of the day, likewise.
        num_files: Files per split.
    """

    origin: Origin
    num_impressions: int
    num_actions: int
    num_files: int


@dataclass(frozen=True)
class JoinPlan:
    """One run of the join over a store.

    Attributes:
        job: What to make.
        store_root: The store.
        scratch_uri: Where files between the stages go.
        outputs: What every day is made from, by day.
        expected: Impressions, actions and actions of summaries that are read, all of which must reach the join.
        num_shards: Groups of users.
        identifiers: Types of the identifiers in each log, by column; shards may hold none of them.
        reading: Which log days are read in which form.
    """

    job: JoinJob
    store_root: str
    scratch_uri: str
    outputs: dict[date, DayOutput]
    expected: tuple[int, ...]
    num_shards: int
    identifiers: dict[str, dict[str, pa.DataType]]
    reading: Reading

    def examples(self, split: str, day: date) -> str:
        """The directory of a day's examples."""
        return Store(self.store_root).examples(split, day)

    def scratch(self, *parts: str) -> str:
        """A file between the stages."""
        return storage.join_uri(self.scratch_uri, *parts)


@dataclass(frozen=True)
class Piece:
    """One shard's rows for one file of a day's examples, and, with a day's first file, what the shard saw that day."""

    uri: str
    batch: int | None
    seen: Seen = Seen()


@dataclass(frozen=True)
class ExamplesFile:
    """One finished file of a day's examples, which its manifest does not name yet.

    Attributes:
        split: Whose file.
        entry: Its name, size and digest.
        rows: Examples.
        positives: Examples with a positive label, by label.
        seen: What all shards saw that day, with the day's first file.
    """

    split: str
    entry: FileEntry
    rows: int
    positives: dict[str, int]
    seen: Seen
