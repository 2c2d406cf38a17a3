"""The tables of a version: one flat file of INT4 rows, which may be mapped into memory, and what lies where in it."""

from __future__ import annotations

from typing import Any

import numpy as np

from components.common.config import Config
from components.common.errors import InputError
from components.common.features import FeatureConfig
from components.common.int4 import Int4Layout, layouts, quantize, relative_error, unpack

_ALIGNMENT = 64


class PackedTable(Config):
    """One table in the file.

    Attributes:
        name: The table.
        num_rows: Its rows.
        dim: Numbers a row.
        block_size: Numbers that share a scale and a bias.
        first_byte: Where it starts.
        relative_error: Squared error of its rows over their squares.
    """

    name: str
    num_rows: int
    dim: int
    block_size: int
    first_byte: int
    relative_error: float

    @property
    def layout(self) -> Int4Layout:
        """How its rows lie in bytes."""
        return Int4Layout(self.dim, self.block_size)

    @property
    def num_bytes(self) -> int:
        """Of all its rows."""
        return self.num_rows * self.layout.row_bytes


def pack_tables(tables: dict[str, np.ndarray], max_error: float) -> tuple[bytes, list[PackedTable]]:
    """Quantize tables, each in the smallest layout whose relative error is at most `max_error`, or the finest.

    Args:
        tables: float32, shape (rows, dim) each, all of one dim.
        max_error: Squared error over squares.

    Returns:
        The file, and the tables in it.
    """
    parts, specs, position = [], [], 0
    for name, rows in tables.items():
        for layout in layouts(rows.shape[1]):
            try:
                packed = quantize(rows, layout)
            except ValueError as error:
                raise InputError(f"table {name}: {error}; train again at a lower rate") from error
            loss = relative_error(rows, packed, layout)
            if loss <= max_error:
                break
        padding = -position % _ALIGNMENT
        parts += [bytes(padding), packed.tobytes()]
        spec = PackedTable(
            name=name,
            num_rows=len(rows),
            dim=layout.dim,
            block_size=layout.block_size,
            first_byte=position + padding,
            relative_error=loss,
        )
        specs.append(spec)
        position = spec.first_byte + spec.num_bytes
    return b"".join(parts), specs


class PackedTables:
    """Looks rows up in a version's file."""

    def __init__(self, content: np.ndarray, specs: list[PackedTable], features: FeatureConfig) -> None:
        """Read from the file's bytes, uint8, shape (size,).

        Raises:
            InputError: If the file is not as long as its tables need, or a table of the feature list is not in it.
        """
        needed = max(spec.first_byte + spec.num_bytes for spec in specs)
        if len(content) != needed:
            raise InputError(f"tables: {len(content)} bytes, the manifest's tables take {needed}; restore the file")
        found = {spec.name: spec.num_rows for spec in specs}
        if found != features.tables:
            differing = sorted(set(found.items()) ^ set(features.tables.items()))
            raise InputError(
                f"tables: not those of the feature list, differing in {differing[:3]}; restore the version"
            )
        self._tables = {
            spec.name: (content[spec.first_byte :][: spec.num_bytes].reshape(spec.num_rows, -1), spec.layout)
            for spec in specs
        }
        self._features = features
        self.num_blocks = max(spec.layout.num_blocks for spec in specs)

    def look_up(self, tables: tuple[str, ...], ids: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Rows of ids, and of every block of their codes.

        Args:
            tables: Of each column.
            ids: Below the tables' `num_ids`, int64, shape (..., columns).

        Returns:
            Two numbers a byte, uint8, shape (..., rows, dim / 2); scales and biases, float16, (..., rows, blocks).
        """
        parts = []
        for number, table in enumerate(tables):
            packed, layout = self._tables[table]
            code, column = self._features.binary_codes.get(table), ids[..., number]
            for rows in code.rows(column) if code else [column]:
                halves, *parameters = unpack(packed[rows], layout)
                repeats = self.num_blocks // layout.num_blocks
                parts.append((halves, *(np.repeat(values, repeats, axis=-1) for values in parameters)))
        halves, scale, bias = (np.stack(values, axis=-2) for values in zip(*parts, strict=True))
        return halves, scale, bias


def bytes_report(specs: list[PackedTable]) -> dict[str, Any]:
    """Bytes of the tables as they are, and as float16."""
    packed = sum(spec.num_bytes for spec in specs)
    half = sum(spec.num_rows * spec.dim * 2 for spec in specs)
    return {"int4": packed, "float16": half, "ratio": packed / half}
