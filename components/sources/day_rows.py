"""Rows of a log on their way to the store: a local file a day, of bounded memory."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

_ROWS_PER_GROUP = 16_384


@dataclass
class DayRows:
    """Rows of one day, in a local Parquet file, and how many were left out by choice.

    Attributes:
        path: The file.
        rows: In it.
        left_out: By reason.
    """

    path: Path
    rows: int = 0
    left_out: Counter[str] = field(default_factory=Counter)
    _waiting: list[pa.Table] = field(default_factory=list, repr=False)
    _writer: pq.ParquetWriter | None = field(default=None, repr=False)

    def add(self, table: pa.Table) -> None:
        """Append rows; they are written in groups of equal size, whatever the pieces in which they come."""
        self._waiting.append(table)
        self.rows += table.num_rows
        if sum(part.num_rows for part in self._waiting) >= _ROWS_PER_GROUP:
            waiting = pa.concat_tables(self._waiting)
            whole = waiting.num_rows // _ROWS_PER_GROUP * _ROWS_PER_GROUP
            self._write(waiting.slice(0, whole))
            self._waiting = [waiting.slice(whole).combine_chunks()]

    def _write(self, table: pa.Table) -> None:
        if self._writer is None:
            self._writer = pq.ParquetWriter(self.path, table.schema, compression="zstd")
        self._writer.write_table(table.combine_chunks(), row_group_size=_ROWS_PER_GROUP)

    def finish(self, schema: pa.Schema) -> None:
        """Write what is left, and close the file."""
        self._write(pa.concat_tables(self._waiting) if self._waiting else schema.empty_table())
        assert self._writer is not None
        self._writer.close()


@dataclass
class FoundDays:
    """Days of a log without folders.

    Attributes:
        where: What the user knows the log by.
        days: Rows by day.
        undated: Rows whose time cannot be read.
    """

    where: str
    days: dict[date, DayRows]
    undated: int = 0
