"""Generated examples with 20 categorical features for the comparison with other libraries.

Ids are drawn by Zipf's law with exponent 1 and then permuted, so that rows of a table that are often looked up do not
lie side by side. Labels follow an effect of every id and the agreement of latent vectors of four tables.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

BATCH = 2000
_LATENT_DIM, _EFFECT, _AGREEMENT, _BASE = 4, 0.35, 0.6, -2.2


@dataclass(frozen=True)
class Size:
    """Tables of one comparison.

    Attributes:
        suffix: Ends the names of its figures.
        table_rows: Rows of the 20 tables.
        dim: Length of their vectors.
    """

    suffix: str
    table_rows: tuple[int, ...]
    dim: int

    @property
    def names(self) -> list[str]:
        """Of the features."""
        return [f"id_{number}" for number in range(len(self.table_rows))]


# 2,029,610 and 230,960 rows.
LARGE = Size(
    "",
    (
        *(1_000_000, 500_000, 250_000, 100_000, 60_000, 40_000, 25_000, 16_000, 10_000, 8_000),
        *(6_000, 4_000, 3_000, 2_500, 2_000, 1_500, 1_000, 500, 100, 10),
    ),
    dim=32,
)
SMALL = Size(
    ".small",
    (
        *(100_000, 50_000, 30_000, 15_000, 10_000, 7_000, 5_000, 4_000, 3_000, 2_000),
        *(1_500, 1_000, 800, 600, 400, 300, 200, 100, 50, 10),
    ),
    dim=16,
)


@dataclass(frozen=True)
class Rows:
    """Examples of any number n.

    Attributes:
        ids: Rows of the tables, int64, shape (n, 20).
        labels: 0 or 1, float32, shape (n,).
    """

    ids: np.ndarray
    labels: np.ndarray

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, part: slice) -> Rows:
        return Rows(self.ids[part], self.labels[part])

    def split(self, num_rows: int) -> list[Rows]:
        """Parts of `num_rows` rows in order."""
        return [self[start : start + num_rows] for start in range(0, len(self), num_rows)]


def draw_rows(size: Size, count: int, seed: int = 0) -> Rows:
    """Draw examples, about one in six of them positive."""
    generator = np.random.default_rng(seed)
    columns, logits = [], np.full(count, _BASE)
    latent: list[np.ndarray] = []
    for number, num_rows in enumerate(size.table_rows):
        ranks = np.exp(generator.random(count) * np.log(num_rows)).astype(np.int64) - 1
        ids = generator.permutation(num_rows)[ranks.clip(0, num_rows - 1)]
        logits += _EFFECT * generator.standard_normal(num_rows, dtype=np.float32)[ids]
        if number < 4:
            latent.append(generator.standard_normal((num_rows, _LATENT_DIM), dtype=np.float32)[ids])
        columns.append(ids)
    for left, right in (latent[:2], latent[2:]):
        logits += _AGREEMENT * (left * right).sum(axis=1)
    labels = generator.random(count) < 1 / (1 + np.exp(-logits))
    return Rows(np.stack(columns, axis=1), labels.astype(np.float32))
