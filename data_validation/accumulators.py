"""Mergeable statistics of one column over Arrow batches.

Every merge is commutative and exact, so any runner gives the same bytes in whatever order it merges. The one exception
is the list of frequent values of a column with more than `MAX_DISTINCT` different ones, whose rare ends are cut.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from fractions import Fraction

import datasketches
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

MAX_DISTINCT = 1_000_000
_HLL_LOG2_REGISTERS = 14
# 19 of a float32's 32 bits remain: sign, exponent, 10 bits of mantissa; neighbours are 0.1% apart.
_DROPPED_BITS = 13
_HALF = np.int32(1 << (_DROPPED_BITS - 1))


@dataclass
class Counts:
    """How many values of each kind there are, by an integer code; codes ascend.

    Attributes:
        codes: int64, shape (distinct,).
        counts: int64, shape (distinct,).
    """

    codes: np.ndarray = field(default_factory=lambda: np.zeros(0, dtype=np.int64))
    counts: np.ndarray = field(default_factory=lambda: np.zeros(0, dtype=np.int64))

    @classmethod
    def of(cls, codes: np.ndarray) -> Counts:
        """Count small integers, int64, shape (n,)."""
        if not len(codes):
            return cls()
        lowest = int(codes.min())
        counts = np.bincount(codes - lowest)
        present = np.flatnonzero(counts)
        return cls(present + lowest, counts[present])

    def merge(self, other: Counts) -> Counts:
        """The sum of both."""
        codes, inverse = np.unique(np.concatenate([self.codes, other.codes]), return_inverse=True)
        summed = np.zeros(len(codes), dtype=np.int64)
        np.add.at(summed, inverse, np.concatenate([self.counts, other.counts]))
        return Counts(codes, summed)

    def quantiles(self, shares: np.ndarray) -> np.ndarray:
        """The code of value number floor(share * n), counted from 0 in order; int64; at least one value is needed."""
        running = np.cumsum(self.counts)
        wanted = np.minimum(np.floor(shares * running[-1]), running[-1] - 1)
        return self.codes[np.searchsorted(running, wanted, side="right")]


def float_codes(values: np.ndarray) -> np.ndarray:
    """Integers in the order of the floats, rounded to 0.05%; finite float32 to int32, shape (n,)."""
    magnitude = ((values.view(np.int32) & np.int32(0x7FFFFFFF)) + _HALF) >> _DROPPED_BITS
    return np.where(values < 0, -magnitude, magnitude)


def float_values(codes: np.ndarray) -> np.ndarray:
    """The floats that codes stand for, float64, shape (n,)."""
    magnitude = (np.abs(codes).astype(np.int32) << _DROPPED_BITS).view(np.float32).astype(np.float64)
    return np.where(codes < 0, -magnitude, magnitude)


@dataclass
class Numbers:
    """Moments and quantiles of numeric values.

    Sums are exact rational numbers: adding them up in any order gives the same, without cancellation.

    Attributes:
        num_values: All values, NaN among them.
        num_nan: NaN.
        num_infinite: Positive or negative infinity; they count for the extremes only.
        num_zeros: Zeros.
        total: Sum of the finite values.
        squares: Sum of their squares.
        lowest: Smallest value.
        highest: Largest value.
        histogram: Finite values by `float_codes`.
    """

    num_values: int = 0
    num_nan: int = 0
    num_infinite: int = 0
    num_zeros: int = 0
    total: Fraction = Fraction(0)
    squares: Fraction = Fraction(0)
    lowest: float = float("inf")
    highest: float = float("-inf")
    histogram: Counts = field(default_factory=Counts)

    @classmethod
    def of(cls, values: np.ndarray) -> Numbers:
        """Describe numbers of any kind, shape (n,)."""
        found = cls(num_values=len(values))
        if not len(values):
            return found
        lowest, highest = float(values.min()), float(values.max())
        if not np.isfinite(lowest + highest):
            found.num_nan = int(np.isnan(values).sum())
            known = values[~np.isnan(values)]
            if len(known):
                found.lowest, found.highest = float(known.min()), float(known.max())
            values = known[np.isfinite(known)]
            found.num_infinite = len(known) - len(values)
        else:
            found.lowest, found.highest = lowest, highest
        if len(values):
            mean = float(values.mean(dtype=np.float64))
            apart = values.astype(np.float64) - mean
            found.num_zeros = len(values) - int(np.count_nonzero(values))
            found.total = len(values) * Fraction(mean) + Fraction(float(apart.sum()))
            around = Fraction(float(apart @ apart))
            found.squares = around + 2 * Fraction(mean) * found.total - len(values) * Fraction(mean) ** 2
            with np.errstate(over="ignore"):
                found.histogram = Counts.of(float_codes(values.astype(np.float32, copy=False)))
        return found

    def merge(self, other: Numbers) -> Numbers:
        """Both together."""
        return Numbers(
            self.num_values + other.num_values,
            self.num_nan + other.num_nan,
            self.num_infinite + other.num_infinite,
            self.num_zeros + other.num_zeros,
            self.total + other.total,
            self.squares + other.squares,
            min(self.lowest, other.lowest),
            max(self.highest, other.highest),
            self.histogram.merge(other.histogram),
        )

    @property
    def num_finite(self) -> int:
        """Values that the moments are of."""
        return self.num_values - self.num_nan - self.num_infinite

    @property
    def mean(self) -> float:
        """Mean of the finite values."""
        return float(self.total / self.num_finite) if self.num_finite else 0.0

    @property
    def std_dev(self) -> float:
        """Population standard deviation of the finite values."""
        if not self.num_finite:
            return 0.0
        variance = self.squares / self.num_finite - (self.total / self.num_finite) ** 2
        return float(max(variance, Fraction(0))) ** 0.5

    def quantiles(self, shares: np.ndarray) -> np.ndarray:
        """Values at shares of the finite values, to 0.05%, float64; zeros when there are none."""
        if not self.num_finite:
            return np.zeros(len(shares))
        return np.clip(float_values(self.histogram.quantiles(shares)), self.lowest, self.highest)


@dataclass
class Categories:
    """How often each value occurs, exactly up to `MAX_DISTINCT` values; integers or strings.

    Attributes:
        frequencies: Columns `value` and `count`.
        num_bytes: Total length of the values as text.
        sketch: HyperLogLog of the values, serialised, once `frequencies` has been cut.
    """

    frequencies: pa.Table | None = None
    num_bytes: int = 0
    sketch: bytes | None = None

    @classmethod
    def of(cls, values: pa.Array) -> Categories:
        """Count values without nulls."""
        if pa.types.is_dictionary(values.type):
            values = values.dictionary_decode()
        counted = pc.value_counts(values)
        table = pa.table({"value": counted.field("values"), "count": counted.field("counts")})
        lengths = pc.binary_length(table["value"].cast(pa.string()))
        num_bytes = pc.sum(pc.multiply(lengths, table["count"])).as_py() or 0
        return cls(table, num_bytes)._cut()

    def merge(self, other: Categories) -> Categories:
        """Both together."""
        tables = [part.frequencies for part in (self, other) if part.frequencies is not None]
        if len(tables) < 2:
            return other if self.frequencies is None else self
        summed = pa.concat_tables(tables).group_by("value", use_threads=False).aggregate([("count", "sum")])
        sketch = None
        if self.sketch is not None or other.sketch is not None:
            sketch = _union(self._sketched(), other._sketched())
        table = pa.table({"value": summed["value"], "count": summed["count_sum"]})
        return Categories(table, self.num_bytes + other.num_bytes, sketch)._cut()

    def _cut(self) -> Categories:
        if self.frequencies is not None and len(self.frequencies) > MAX_DISTINCT:
            self.sketch = self._sketched()
            self.frequencies = self.most_frequent(MAX_DISTINCT // 2)
        return self

    def _sketched(self) -> bytes:
        if self.sketch is not None:
            return self.sketch
        sketch = datasketches.hll_sketch(_HLL_LOG2_REGISTERS)
        for value in self.frequencies["value"].to_pylist() if self.frequencies is not None else ():
            sketch.update(value)
        return bytes(sketch.serialize_compact())

    def most_frequent(self, limit: int) -> pa.Table:
        """The most frequent values, columns `value` and `count`; of equally frequent ones the smaller first."""
        if self.frequencies is None:
            return pa.table({"value": pa.array([], pa.string()), "count": pa.array([], pa.int64())})
        if not len(self.frequencies):
            return self.frequencies
        order = pc.select_k_unstable(
            self.frequencies, min(limit, len(self.frequencies)), [("count", "descending"), ("value", "ascending")]
        )
        return self.frequencies.take(order)

    @property
    def num_distinct(self) -> int:
        """Different values; above `MAX_DISTINCT` an estimate with about 1% error."""
        if self.sketch is None:
            return 0 if self.frequencies is None else len(self.frequencies)
        # Only the estimate of a union of two is free of the order in which values came.
        return round(datasketches.hll_sketch.deserialize(_union(self.sketch, self.sketch)).get_estimate())


def _union(*sketches: bytes) -> bytes:
    union = datasketches.hll_union(_HLL_LOG2_REGISTERS)
    for sketch in sketches:
        union.update(datasketches.hll_sketch.deserialize(sketch))
    return bytes(union.get_result().serialize_compact())


@dataclass
class ColumnStatistics:
    """Everything about one column.

    Attributes:
        kind: The column's Arrow value type as text, e.g. `int64`.
        num_rows: Rows, with a value or without.
        num_missing: Rows without.
        lengths: Rows with a value by their number of values; one for columns that are no lists.
        values: What the values are.
    """

    kind: str
    num_rows: int
    num_missing: int
    lengths: Counts
    values: Numbers | Categories

    @classmethod
    def of(cls, column: pa.Array, categorical: bool) -> ColumnStatistics:
        """Describe a column of numbers, bools, strings, or lists of those.

        Args:
            column: n rows.
            categorical: Whether integers are identifiers, to be counted one by one.

        Raises:
            TypeError: If values are of another kind.
        """
        num_missing, values, lengths = column.null_count, column, Counts()
        if pa.types.is_list(column.type) or pa.types.is_large_list(column.type):
            sizes = pc.list_value_length(column).drop_null().to_numpy(zero_copy_only=False)
            lengths, values = Counts.of(sizes.astype(np.int64)), column.flatten()
        elif len(column) > num_missing:
            lengths = Counts(np.array([1]), np.array([len(column) - num_missing]))
        values = values.drop_null() if values.null_count else values
        return cls(str(values.type), len(column), num_missing, lengths, _describe(values, categorical))

    def merge(self, other: ColumnStatistics) -> ColumnStatistics:
        """Both together.

        Raises:
            TypeError: If one holds numbers and the other categories.
        """
        merged: Numbers | Categories
        if isinstance(self.values, Numbers) and isinstance(other.values, Numbers):
            merged = self.values.merge(other.values)
        elif isinstance(self.values, Categories) and isinstance(other.values, Categories):
            merged = self.values.merge(other.values)
        else:
            raise TypeError(f"a column is {self.kind} in one place and {other.kind} in another")
        return ColumnStatistics(
            self.kind,
            self.num_rows + other.num_rows,
            self.num_missing + other.num_missing,
            self.lengths.merge(other.lengths),
            merged,
        )


def _describe(values: pa.Array, categorical: bool) -> Numbers | Categories:
    kind = values.type
    if pa.types.is_dictionary(kind):
        kind = kind.value_type
    if pa.types.is_large_string(kind) or pa.types.is_string_view(kind):
        return Categories.of(values.cast(pa.string()))
    if pa.types.is_string(kind) or (categorical and pa.types.is_integer(kind)):
        return Categories.of(values)
    if pa.types.is_boolean(kind):
        return Numbers.of(values.cast(pa.int8()).to_numpy(zero_copy_only=False))
    if pa.types.is_integer(kind) or pa.types.is_floating(kind):
        return Numbers.of(values.to_numpy(zero_copy_only=False))
    raise TypeError(f"{kind}: there are statistics of numbers, bools, strings and lists of them only")
