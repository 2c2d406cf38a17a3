"""Impressions or actions as arrays."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from components.features.hashing import hash_identifiers


@dataclass(frozen=True)
class Events:
    """Impressions or actions of some users; n rows.

    Attributes:
        table: The log's columns.
        times: Microseconds since the epoch, int64, shape (n,).
        users: Hashed users, uint64, shape (n,).
    """

    table: pa.Table
    times: np.ndarray
    users: np.ndarray
    _hashes: dict[str, np.ndarray] = field(default_factory=dict)

    @classmethod
    def of(cls, table: pa.Table) -> Events:
        """Extract the columns that every computation needs."""
        table = table.combine_chunks()
        times = table["timestamp"].cast(pa.int64()).to_numpy()
        return cls(table, times, hash_identifiers(table["user_id"]))

    def __len__(self) -> int:
        """Number of rows."""
        return len(self.times)

    def take(self, rows: np.ndarray) -> Events:
        """The events of some rows, given as int64 row numbers or as bool of shape (n,)."""
        chosen = pa.array(rows)
        table = self.table.filter(chosen) if rows.dtype == bool else self.table.take(chosen)
        return Events(table, self.times[rows], self.users[rows])

    def hashed(self, column: str) -> np.ndarray:
        """A hashed identifier column, uint64, shape (n,); nulls are `hashing.MISSING`."""
        if column not in self._hashes:
            self._hashes[column] = self.users if column == "user_id" else hash_identifiers(self.table[column])
        return self._hashes[column]

    def known(self, column: str) -> np.ndarray:
        """Rows that have a value, bool, shape (n,)."""
        return self.table[column].is_valid().to_numpy()

    def where(self, column: str, value: str) -> np.ndarray:
        """Rows whose text column equals a value, bool, shape (n,)."""
        return pc.fill_null(pc.equal(self.table[column], value), False).to_numpy()

    def number(self, column: str) -> np.ndarray:
        """A numeric column with nulls as NaN, float64, shape (n,)."""
        return self.table[column].cast(pa.float64()).to_numpy()

    def lists(self, column: str) -> pa.ListArray:
        """A column of lists, of identifiers or numbers."""
        lists = self.table[column].combine_chunks()
        return pa.concat_arrays(lists.chunks) if isinstance(lists, pa.ChunkedArray) else lists
