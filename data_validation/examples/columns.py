"""Mergeable statistics of one column over Arrow batches.

Every merge is commutative and exact, so any runner gives the same bytes in whatever order it merges. The one exception
is the list of frequent values of a column with more than `categories.MAX_DISTINCT` different ones, whose rare ends are
cut.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from data_validation.examples.categories import Categories
from data_validation.examples.numbers import Counts, Numbers


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
        """The statistics of both together.

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
