"""Embedding rows as 4-bit numbers: value = scale * number + bias, with a scale and a bias a row or a block of it.

A row's bytes are those of FBGEMM's and torch's 4-bit operators: two numbers a byte, the earlier one in the low half,
then scale and bias as float16. With blocks, a row is its blocks behind each other, each of this form. A row of 8-bit
numbers is two such rows that add up to it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import product

import numpy as np

_LEVELS, _LEVELS_OF_8 = 15, 255
_ROWS_AT_ONCE = 65_536
# Shares of a row's range to cut off below and above, tried because clipping may lose less than finer steps gain.
_CUTS = (0.0, 0.05, 0.1, 0.15, 0.2)
_PARAMETERS = 4


@dataclass(frozen=True)
class Int4Layout:
    """How rows of `dim` numbers lie in bytes.

    Attributes:
        dim: Numbers a row, even.
        block_size: Numbers that share scale and bias; even, divides `dim`.
    """

    dim: int
    block_size: int

    def __post_init__(self) -> None:
        if self.block_size % 2 or self.dim % self.block_size:
            raise ValueError(f"blocks of {self.block_size} numbers: must be even and divide the row's {self.dim}")

    @property
    def num_blocks(self) -> int:
        """Blocks a row."""
        return self.dim // self.block_size

    @property
    def row_bytes(self) -> int:
        """Bytes a row."""
        return self.num_blocks * (self.block_size // 2 + _PARAMETERS)


def finest(some: Iterable[Int4Layout]) -> Int4Layout:
    """The layout with the most blocks."""
    return max(some, key=lambda layout: layout.num_blocks)


def quantize(rows: np.ndarray, layout: Int4Layout) -> np.ndarray:
    """Pack rows, each block with the clip of its range that has the least squared error.

    Args:
        rows: float32, shape (n, dim).
        layout: How.

    Returns:
        uint8, shape (n, `row_bytes`).

    Raises:
        ValueError: If a number is not finite, or beyond float16.
    """
    packed = np.empty((len(rows), layout.row_bytes), dtype=np.uint8)
    for part, blocks in _blocks(rows, layout):
        packed[part] = _pack(*_best_fit(blocks)).reshape(-1, layout.row_bytes)
    return packed


def quantize_int8(rows: np.ndarray, layout: Int4Layout) -> tuple[np.ndarray, np.ndarray]:
    """Pack rows as 8-bit numbers, each in two rows of 4 bits.

    A number 16 * high + low with a scale and a bias is the sum of `high` with 16 * scale and the bias, and of `low`
    with the scale and no bias. Numbers within float16 have scales of at most 258, so that 16 * scale is a float16 too.

    Args:
        rows: float32, shape (n, dim).
        layout: How.

    Returns:
        Coarse and fine rows, uint8, shape (n, `row_bytes`) each.

    Raises:
        ValueError: If a number is not finite, or beyond float16.
    """
    coarse, fine = (np.empty((len(rows), layout.row_bytes), dtype=np.uint8) for _ in range(2))
    for part, blocks in _blocks(rows, layout):
        # Rounded so that the whole range is covered.
        bias = _float16_below(blocks.min(axis=1))
        scale = np.abs(_float16_below((bias - blocks.max(axis=1)) / _LEVELS_OF_8))
        numbers = _nearest(blocks, scale, bias, _LEVELS_OF_8).astype(np.uint8)
        coarse[part] = _pack(numbers >> 4, 16 * scale, bias).reshape(-1, layout.row_bytes)
        fine[part] = _pack(numbers & 15, scale, np.zeros_like(bias)).reshape(-1, layout.row_bytes)
    return coarse, fine


def _float16_below(values: np.ndarray) -> np.ndarray:
    """The largest float16 that are at most these."""
    nearest = values.astype(np.float16)
    return np.where(nearest > values, np.nextafter(nearest, np.float16(-np.inf)), nearest)


def _blocks(rows: np.ndarray, layout: Int4Layout) -> Iterator[tuple[slice, np.ndarray]]:
    """Some rows at a time, and their blocks, float32, shape (any, block size).

    Raises:
        ValueError: If a number is not finite, or beyond float16.
    """
    for start in range(0, len(rows), _ROWS_AT_ONCE):
        part = rows[start : start + _ROWS_AT_ONCE]
        if not np.isfinite(part).all() or np.abs(part).max(initial=0) > np.finfo(np.float16).max / 2:
            bad = start + int(np.argmax(~(np.abs(part) <= np.finfo(np.float16).max / 2).all(axis=1)))
            raise ValueError(f"row {bad} holds numbers that float16 cannot: {rows[bad].tolist()[:4]}")
        yield slice(start, start + len(part)), part.reshape(-1, layout.block_size).astype(np.float32)


def _pack(numbers: np.ndarray, scale: np.ndarray, bias: np.ndarray) -> np.ndarray:
    halves = numbers[:, 0::2] | (numbers[:, 1::2] << 4)
    parameters = np.column_stack([scale, bias]).astype("<f2").view(np.uint8)
    return np.concatenate([halves, parameters], axis=1)


def _best_fit(blocks: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Numbers (n, size), scale (n,) and bias (n,) of the clip with the least squared error."""
    low, high = blocks.min(axis=1), blocks.max(axis=1)
    best_error = np.full(len(blocks), np.inf, dtype=np.float32)
    numbers = np.zeros(blocks.shape, dtype=np.uint8)
    scale, bias = np.zeros(len(blocks), dtype=np.float16), np.zeros(len(blocks), dtype=np.float16)
    for below, above in product(_CUTS, _CUTS):
        try_bias = (low + (high - low) * below).astype(np.float16)
        try_scale = ((high - low) * (1 - below - above) / _LEVELS).astype(np.float16)
        try_numbers = _nearest(blocks, try_scale, try_bias, _LEVELS)
        wide, shift = try_scale.astype(np.float32)[:, None], try_bias.astype(np.float32)[:, None]
        error = ((try_numbers * wide + shift - blocks) ** 2).sum(axis=1)
        better = error < best_error
        best_error[better], numbers[better] = error[better], try_numbers[better].astype(np.uint8)
        scale[better], bias[better] = try_scale[better], try_bias[better]
    return numbers, scale, bias


def _nearest(blocks: np.ndarray, scale: np.ndarray, bias: np.ndarray, levels: int) -> np.ndarray:
    """Whole numbers, float32, shape (n, size), whose values are nearest to the blocks'."""
    wide, shift = scale.astype(np.float32)[:, None], bias.astype(np.float32)[:, None]
    with np.errstate(divide="ignore", invalid="ignore"):
        steps = np.where(wide > 0, (blocks - shift) / wide, 0)
    return np.rint(steps).clip(0, levels)


def unpack(packed: np.ndarray, layout: Int4Layout) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Parts of packed rows of shape (..., `row_bytes`).

    Returns:
        Two numbers a byte, uint8, shape (..., dim / 2); scales and biases, float16, shape (..., blocks) each.
    """
    blocks = packed.reshape(*packed.shape[:-1], layout.num_blocks, -1)
    halves = blocks[..., : layout.block_size // 2].reshape(*packed.shape[:-1], layout.dim // 2)
    parameters = np.ascontiguousarray(blocks[..., layout.block_size // 2 :]).view("<f2")
    return halves, parameters[..., 0], parameters[..., 1]


def widen(packed: np.ndarray, layout: Int4Layout, target: Int4Layout) -> np.ndarray:
    """Packed rows of shape (..., `row_bytes`) in a layout with more blocks, each with the scale and bias it had."""
    if layout == target:
        return packed
    repeats = target.num_blocks // layout.num_blocks
    blocks = packed.reshape(*packed.shape[:-1], layout.num_blocks, -1)
    halves = blocks[..., : layout.block_size // 2].reshape(*packed.shape[:-1], target.num_blocks, -1)
    parameters = np.repeat(blocks[..., layout.block_size // 2 :], repeats, axis=-2)
    return np.concatenate([halves, parameters], axis=-1).reshape(*packed.shape[:-1], target.row_bytes)


def dequantize(packed: np.ndarray, layout: Int4Layout) -> np.ndarray:
    """Vectors of packed rows, (..., `row_bytes`) to float32 (..., dim)."""
    halves, scale, bias = unpack(packed, layout)
    numbers = np.stack([halves & 15, halves >> 4], axis=-1).astype(np.float32)
    blocks = numbers.reshape(*halves.shape[:-1], layout.num_blocks, layout.block_size)
    vectors = blocks * scale.astype(np.float32)[..., None] + bias.astype(np.float32)[..., None]
    return vectors.reshape(*halves.shape[:-1], layout.dim)


def relative_error(rows: np.ndarray, packed: np.ndarray, layout: Int4Layout) -> float:
    """Squared error of packed rows over the rows' squared deviation from zero; 0 for rows of zeros."""
    error = power = 0.0
    for start in range(0, len(rows), _ROWS_AT_ONCE):
        part = rows[start : start + _ROWS_AT_ONCE].astype(np.float64)
        error += float(((dequantize(packed[start : start + len(part)], layout) - part) ** 2).sum())
        power += float((part**2).sum())
    return error / power if power else 0.0


def finest_layout(dim: int) -> Int4Layout:
    """The last of `layouts`."""
    return [*layouts(dim)][-1]


def layouts(dim: int) -> Iterator[Int4Layout]:
    """What a table may choose from, the smallest first: a scale and a bias a row, or for every 16 numbers."""
    yield Int4Layout(dim, dim)
    if dim % 16 == 0 and dim > 16:
        yield Int4Layout(dim, 16)
