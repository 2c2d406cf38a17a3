"""Writes the tables of a version: each in the smallest layout whose error is small enough."""

from __future__ import annotations

import numpy as np

from components.common.errors import InputError
from components.version.int4 import layouts, quantize, quantize_int8, relative_error
from components.version.packed_tables import HOT_ID, PackedTable
from components.version.parity import TableBytes


def pack_tables(
    tables: dict[str, np.ndarray], max_error: float, hot: dict[str, np.ndarray] | None = None
) -> tuple[bytes, list[PackedTable]]:
    """Quantize tables, each in the smallest layout whose error in 4 bits is at most `max_error`, or the finest.

    Args:
        tables: float32, shape (rows, dim) each, all of one dim.
        max_error: Squared error over squares.
        hot: By table, the rows that keep 8 bits, sorted, int64; other tables have none.

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
        ids = (hot or {}).get(name, np.zeros(0, dtype=HOT_ID))
        padding = -position % layout.row_bytes
        spec = PackedTable(
            name=name,
            num_rows=len(rows),
            dim=layout.dim,
            block_size=layout.block_size,
            first_byte=position + padding,
            relative_error=loss,
            num_hot=len(ids),
        )
        behind = _refine(packed, rows, ids, spec) if len(ids) else b""
        parts += [bytes(padding), packed.tobytes(), behind]
        specs.append(spec)
        position = spec.end_byte
    return b"".join(parts), specs


def _refine(packed: np.ndarray, rows: np.ndarray, ids: np.ndarray, spec: PackedTable) -> bytes:
    """Pack some rows as 8-bit numbers; returns what lies behind the table."""
    packed[ids], fine = quantize_int8(rows[ids], spec.layout)
    zeros = spec.hot_byte - spec.first_byte - spec.num_bytes - fine.size
    return fine.tobytes() + bytes(zeros) + ids.astype(HOT_ID).tobytes()


def bytes_of(specs: list[PackedTable]) -> TableBytes:
    """Bytes of the tables as they are, and as float16."""
    packed = sum(spec.end_byte - spec.first_byte for spec in specs)
    half = sum(spec.num_rows * spec.dim * 2 for spec in specs)
    return TableBytes(int4=packed, float16=half, ratio=packed / half)
