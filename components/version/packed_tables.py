"""The tables of a version: one flat file of INT4 rows, which may be mapped into memory, and what lies where in it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Self

import numpy as np
from pydantic import Field, model_validator

from components.common.config import Config
from components.common.errors import InputError
from components.features.encoding import learned_rows
from components.features.exact_ids import IdIndex
from components.features.feature_list import FeatureConfig
from components.features.learned_rows import NO_INDEXES, RowIndex
from components.version.int4 import Int4Layout, finest, widen
from components.version.row_codes import RowCode, row_code

_PAGE = 4096
HOT_ID = np.dtype("<i8")


class PackedTable(Config):
    """One table in the file.

    Behind its rows, a table with hot rows, which are of 8 bits, has fine rows: what each hot row has beyond its own 4
    bits, in order, and a row of zeros for all others. Behind these are the ids of the hot rows, sorted, little-endian
    int64, from a multiple of 8 bytes on.

    Attributes:
        name: The table.
        num_rows: Its rows.
        dim: Numbers a row.
        block_size: Numbers that share a scale and a bias.
        first_byte: Where it starts.
        relative_error: Squared error of its rows over their squares, as rows of 4 bits.
        num_hot: Of its rows, those of 8 bits.
    """

    name: str
    num_rows: int = Field(ge=1)
    dim: int = Field(ge=2)
    block_size: int = Field(ge=2)
    first_byte: int = Field(ge=0)
    relative_error: float
    num_hot: int = Field(default=0, ge=0)

    @model_validator(mode="after")
    def _has_a_layout(self) -> Self:
        Int4Layout(self.dim, self.block_size)
        return self

    @property
    def layout(self) -> Int4Layout:
        """How its rows lie in bytes."""
        return Int4Layout(self.dim, self.block_size)

    @property
    def num_bytes(self) -> int:
        """Bytes of all its rows, without fine ones."""
        return self.num_rows * self.layout.row_bytes

    @property
    def hot_byte(self) -> int:
        """Where the ids of the hot rows start."""
        rows_end = self.first_byte + self.num_bytes + (self.num_hot + 1) * self.layout.row_bytes
        return rows_end + -rows_end % HOT_ID.itemsize

    @property
    def end_byte(self) -> int:
        """Where what belongs to it ends."""
        return self.hot_byte + self.num_hot * HOT_ID.itemsize if self.num_hot else self.first_byte + self.num_bytes

    def rows(self, content: np.ndarray) -> np.ndarray:
        """Its rows in the file's bytes, then its fine rows; uint8, shape (any, row bytes)."""
        num_rows, row_bytes = self.num_rows + (self.num_hot + 1 if self.num_hot else 0), self.layout.row_bytes
        return content[self.first_byte :][: num_rows * row_bytes].reshape(-1, row_bytes)

    def hot_ids(self, content: np.ndarray) -> np.ndarray:
        """Ids of its hot rows in the file's bytes, sorted, int64."""
        return content[self.hot_byte : self.end_byte].view(HOT_ID) if self.num_hot else np.zeros(0, dtype=HOT_ID)


@dataclass(frozen=True)
class LookUpRow:
    """One of the rows that ids of some tables are looked up in: whose, and a part of which of their vectors."""

    table: PackedTable
    vector: int


def look_up_rows(tables: tuple[str, ...], specs: list[PackedTable], features: FeatureConfig) -> list[LookUpRow]:
    """The rows that one id of each of these tables takes, in the order of a look-up.

    A table gives a row, or one for each block of its code; then as many fine rows, if it has any.
    """
    by_name, rows, made = {spec.name: spec for spec in specs}, [], 0
    for name in tables:
        spec = by_name[name]
        code = row_code(name, features, spec.dim)
        width = code.num_vectors if code else 1
        vectors = [made + min(block, width - 1) for block in range(code.num_blocks if code else 1)]
        rows += [LookUpRow(spec, vector) for vector in vectors * (2 if spec.num_hot else 1)]
        made += width
    return rows


class PackedTables:
    """Looks rows up in a version's file.

    A table begins at a multiple of its own row's bytes, so that the file is one array of rows to all tables of a layout
    and a request is one gather, however many tables it asks.

    Attributes:
        features: The feature list.
        indexes: Which row each exact id has, by table.
        layout: Of the rows that it gives: that of its tables with the most blocks.
    """

    def __init__(
        self,
        content: np.ndarray,
        specs: list[PackedTable],
        features: FeatureConfig,
        indexes: Mapping[str, RowIndex] = NO_INDEXES,
    ) -> None:
        """Read from the file's bytes, uint8, shape (size,); `indexes` has the rows of exact ids, by table.

        Raises:
            InputError: If the file is not as long as its tables need, or a table of the feature list is not in it.
        """
        needed = max((spec.end_byte for spec in specs), default=0)
        if len(content) != needed:
            raise InputError(f"tables: {len(content)} bytes, the manifest's tables take {needed}; restore the file")
        table_rows = {spec.name: spec.num_rows for spec in specs if spec.name not in features.vector_names}
        vectors = {*features.vector_names} - {spec.name for spec in specs}
        if table_rows != features.tables or vectors:
            differing = sorted({*(table_rows.items() ^ features.tables.items()), *((name, 0) for name in vectors)})
            raise InputError(
                f"tables: not those of the feature list, differing in {differing[:3]}; restore the version"
            )
        misplaced = [spec.name for spec in specs if spec.first_byte % spec.layout.row_bytes]
        if misplaced:
            raise InputError(f"tables: {misplaced[:3]} do not begin at a multiple of their rows; export them again")
        self._content, self.features, self.indexes = np.asarray(content), features, indexes
        self.layout = finest(spec.layout for spec in specs)
        self._rows = {layout: _rows_of(self._content, layout) for layout in {spec.layout for spec in specs}}
        self._columns = {
            tables: _Columns.of(tables, specs, features, self._content)
            for tables in (features.served_columns, features.sequence_tables)
        }

    def look_up(self, tables: tuple[str, ...], ids: np.ndarray) -> np.ndarray:
        """Rows of ids, of every block of their codes, and of what these have beyond 4 bits.

        Exact ids are hashes, of which any may come: those that are not admitted get one of the shared rows.

        Args:
            tables: Of each column: the feature list's served columns or sequence tables.
            ids: int64, shape (..., columns).

        Returns:
            Packed rows in `layout`, uint8, shape (..., rows, `layout.row_bytes`).

        Raises:
            InputError: If an id is not below its table's modulus, or below 0.
        """
        return self.look_up_and_count(tables, ids)[0]

    def look_up_and_count(self, tables: tuple[str, ...], ids: np.ndarray) -> tuple[np.ndarray, dict[str, int]]:
        """`look_up`, and how many ids have no row of their own, by table with exact ids or pretrained vectors."""
        columns = self._columns[tables]
        columns.check(tables, ids)
        own = learned_rows(ids, tables, self.features, self.indexes)
        unknown: Counter[str] = Counter()
        for column, table in enumerate(tables):
            index = self.indexes.get(table)
            if isinstance(index, IdIndex):
                is_unknown = own[..., column] >= index.exact.capacity
                if table in self.features.list_positions:
                    # Most of a list's positions are often empty.
                    is_unknown &= ids[..., column] != 0
                unknown[table] += int(np.count_nonzero(is_unknown))
        return self._gather(columns, columns.places(own)), unknown

    def _gather(self, columns: _Columns, places: np.ndarray) -> np.ndarray:
        if len(self._rows) == 1:
            return self._rows[self.layout].take(places, axis=0)
        rows = np.empty((*places.shape, self.layout.row_bytes), dtype=np.uint8)
        for layout, file_rows in self._rows.items():
            chosen = columns.of_layout(layout)
            rows[..., chosen, :] = widen(file_rows.take(places[..., chosen], axis=0), layout, self.layout)
        return rows

    def warm(self) -> None:
        """Read a byte of every page, so that no request waits for a disk."""
        for content in (self._content, *(part for own in self.indexes.values() for part in (own.keys, own.slots))):
            content[:: _PAGE // content.itemsize].max(initial=0)


@dataclass(frozen=True)
class _Columns:
    """Where ids of some columns lie.

    Attributes:
        moduli: Ids of each column are below it, int64, shape (columns,).
        first_rows: Of each row of a look-up, in the file as an array of rows, int64, shape (rows,).
        layouts: Of each row of a look-up.
        codes: Of each column.
        tables: Of each column.
        hot: Ids of each column's hot rows, sorted.
    """

    moduli: np.ndarray
    first_rows: np.ndarray
    layouts: tuple[Int4Layout, ...]
    codes: tuple[RowCode | None, ...]
    tables: tuple[PackedTable, ...]
    hot: tuple[np.ndarray, ...]

    @classmethod
    def of(
        cls, tables: tuple[str, ...], specs: list[PackedTable], features: FeatureConfig, content: np.ndarray
    ) -> _Columns:
        owners = [row.table for row in look_up_rows(tables, specs, features)]
        by_name = {spec.name: spec for spec in specs}
        columns = tuple(by_name[table] for table in tables)
        return cls(
            np.array([features.moduli[table] for table in tables]),
            np.array([spec.first_byte // spec.layout.row_bytes for spec in owners]),
            tuple(spec.layout for spec in owners),
            tuple(row_code(spec.name, features, spec.dim) for spec in columns),
            columns,
            tuple(spec.hot_ids(content) for spec in columns),
        )

    def check(self, tables: tuple[str, ...], ids: np.ndarray) -> None:
        if ids.shape[-1] != len(tables):
            raise InputError(f"ids of {ids.shape[-1]} columns; the version has {len(tables)}: {list(tables)[:5]}")
        wrong = (ids < 0) | (ids >= self.moduli)
        if wrong.any():
            column = int(np.argmax(wrong.reshape(-1, len(tables)).any(axis=0)))
            value = ids[..., column][wrong[..., column]].flat[0]
            raise InputError(
                f"id {value} of {tables[column]}: must be from 0 to {self.moduli[column] - 1}; take hashes modulo the "
                "table's ids"
            )

    def places(self, ids: np.ndarray) -> np.ndarray:
        """Rows of the file, int64, shape (..., rows)."""
        if len(self.first_rows) == len(self.moduli):
            return ids + self.first_rows
        places: list[np.ndarray] = []
        for column, (code, spec, hot) in enumerate(zip(self.codes, self.tables, self.hot, strict=True)):
            rows = code.rows(ids[..., column]) if code else [ids[..., column]]
            places += rows
            if len(hot):
                places += [spec.num_rows + _ranks(hot, row) for row in rows]
        return np.stack(places, axis=-1) + self.first_rows

    def of_layout(self, layout: Int4Layout) -> np.ndarray:
        return np.flatnonzero([own == layout for own in self.layouts])


def _ranks(hot: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """Which of the hot rows each row is, or how many these are, if it is none."""
    ranks = np.searchsorted(hot, rows)
    return np.where(hot.take(ranks, mode="clip") == rows, ranks, len(hot))


def _rows_of(content: np.ndarray, layout: Int4Layout) -> np.ndarray:
    return content[: len(content) // layout.row_bytes * layout.row_bytes].reshape(-1, layout.row_bytes)
