"""Mergeable counts of the values of a column."""

from __future__ import annotations

from dataclasses import dataclass

import datasketches
import pyarrow as pa
import pyarrow.compute as pc

MAX_DISTINCT = 1_000_000
_HLL_LOG2_REGISTERS = 14


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
        """The statistics of both together."""
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
