"""How an id becomes rows of a version's table, where it is not a row itself."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

from components.features.feature_list import FeatureConfig


class RowCode(Protocol):
    """Several rows for each id."""

    @property
    def num_blocks(self) -> int:
        """Rows of an id."""

    @property
    def num_vectors(self) -> int:
        """Vectors that they make."""

    def rows(self, codes: Any) -> list[Any]:
        """Each block's rows, of ids as an int64 array of NumPy or tensor of torch, of any shape."""


@dataclass(frozen=True)
class VectorRows:
    """A pretrained vector that is longer than a row: number `i` has the rows from `i * num_blocks` on."""

    num_blocks: int

    @property
    def num_vectors(self) -> int:
        """As many as rows."""
        return self.num_blocks

    def rows(self, codes: Any) -> list[Any]:
        """Each piece's rows."""
        return [codes * self.num_blocks + piece for piece in range(self.num_blocks)]


def row_code(table: str, features: FeatureConfig, dim: int) -> RowCode | None:
    """That of a table whose rows have `dim` numbers; None where ids are rows."""
    for feature in features.vectors:
        if feature.name == table:
            return VectorRows(feature.rows_per_vector(dim))
    return features.binary_codes.get(table)
