"""Embedding look-up, backward and optimizer of 60 tables, 2.03 million rows, batch 2000, dim 32; one figure a line.

All variants take turns in one process with pinned threads; figures are medians of steps. The semantics differ: dense
Adam also moves rows that are not in the batch, SparseAdam and the lazy Adam do not.
"""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from components.train.config import OptimizerConfig
from components.train.lazy_adam import LazyAdam
from components.train.rows import DistinctRows, RowGradients

NUM_TABLES, DIM, BATCH, NUM_THREADS = 60, 32, 2000, 2
STEPS, WARM_UP = 12, 3
TABLE_ROWS = [1_000_000, 500_000, 200_000, 100_000, 50_000] + [int(r) for r in np.geomspace(40_000, 10, 55) * 0.64]


class Lookups:
    """Rows of every batch: Zipf with exponent 1.25 over each table."""

    def __init__(self, table_rows: list[int]) -> None:
        """Draw from tables of these sizes."""
        self.total = sum(table_rows)
        self._sizes = np.array(table_rows)
        self._starts = np.concatenate([[0], np.cumsum(self._sizes)[:-1]])
        self._generator = np.random.default_rng(3)

    def rows(self) -> Tensor:
        """Rows of one batch, int64, shape (tables * batch,)."""
        uniform = self._generator.random((BATCH, len(self._sizes)))
        rank = ((self._sizes**-0.25 - 1) * uniform + 1) ** -4 - 1
        rows = self._starts + rank.astype(np.int64).clip(0, self._sizes - 1)
        return torch.from_numpy(rows.T.reshape(-1).copy())


Step = Callable[[Tensor], None]


@lru_cache
def _gradients(count: int) -> Tensor:
    return torch.randn(count, DIM) * 1e-4


def gradient_of(rows: Tensor) -> Tensor:
    """What comes back from the net: ready-made, so that only tables and optimizer are timed."""
    return _gradients(len(rows))


def lazy(table_rows: list[int], adaptive: bool) -> Step:
    """This package's."""
    weight = torch.randn(sum(table_rows), DIM) * 0.01
    values = {"tables": "lazy_adam", "frequency_adaptive": {} if adaptive else None}
    optimizer = LazyAdam(weight, table_rows, OptimizerConfig.parse(values, "optimizer"))

    def step(rows: Tensor) -> None:
        distinct = DistinctRows.of(rows)
        vectors = weight.index_select(0, distinct.rows).requires_grad_()
        distinct.expand(vectors).backward(gradient_of(rows))
        assert vectors.grad is not None
        optimizer.step(RowGradients(distinct.rows, distinct.counts, vectors.grad))

    return step


def torch_adam(table_rows: list[int], sparse: bool, fused: bool = False) -> Step:
    """`nn.Embedding` with torch's own optimizers."""
    table = torch.nn.Embedding(sum(table_rows), DIM, sparse=sparse)
    parameters = list(table.parameters())
    optimizer: torch.optim.Optimizer
    if sparse:
        optimizer = torch.optim.SparseAdam(parameters, lr=1e-3)
    else:
        optimizer = torch.optim.Adam(parameters, lr=1e-3, fused=fused or None)

    def step(rows: Tensor) -> None:
        optimizer.zero_grad()
        table(rows).backward(gradient_of(rows))
        optimizer.step()

    return step


def bandwidth(table_rows: list[int]) -> Step:
    """What memory alone needs: the look-up, and the distinct rows' weights and two moments read and written."""
    tables = [torch.zeros(sum(table_rows), DIM) for _ in range(3)]

    def step(rows: Tensor) -> None:
        distinct = torch.unique(rows)
        start = time.perf_counter()
        tables[0].index_select(0, rows)
        for table in tables:
            table.index_copy_(0, distinct, table.index_select(0, distinct))
        _BOUND.append(time.perf_counter() - start)

    return step


_BOUND: list[float] = []


def interleaved(steps: dict[str, Step], lookups: Lookups, count: int = STEPS) -> dict[str, float]:
    """Median milliseconds of each variant."""
    times: dict[str, list[float]] = {name: [] for name in steps}
    for number in range(count + WARM_UP):
        rows = lookups.rows()
        for name, step in steps.items():
            start = time.perf_counter()
            step(rows)
            if number >= WARM_UP:
                times[name].append(1e3 * (time.perf_counter() - start))
    return {name: statistics.median(values) for name, values in times.items()}


def main() -> None:
    """Print the figures."""
    torch.set_num_threads(NUM_THREADS)
    torch.manual_seed(0)
    found = interleaved(
        {
            "lazy": lazy(TABLE_ROWS, adaptive=False),
            "fal": lazy(TABLE_ROWS, adaptive=True),
            "sparse": torch_adam(TABLE_ROWS, sparse=True),
            "bound": bandwidth(TABLE_ROWS),
            "adam": torch_adam(TABLE_ROWS, sparse=False),
            "fused": torch_adam(TABLE_ROWS, sparse=False, fused=True),
        },
        Lookups(TABLE_ROWS),
    )
    print("  " + ", ".join(f"{name} {value:.1f} ms" for name, value in found.items()), file=sys.stderr)
    print(f"train.embed.milliseconds: {found['fal']:.1f}")
    print(f"train.embed.speedup_vs_adam: {found['adam'] / found['fal']:.1f}")
    print(f"train.embed.speedup_vs_fused_adam: {found['fused'] / found['fal']:.1f}")
    print(f"train.embed.speedup_vs_sparse_adam: {found['sparse'] / found['fal']:.1f}")
    print(f"train.embed.ratio_to_bandwidth: {found['fal'] / (1e3 * statistics.median(_BOUND)):.2f}")
    print(f"train.fal.overhead: {found['fal'] / found['lazy'] - 1:.3f}")
    growth = []
    for millions in (1, 4, 16):
        tables = [millions * 1_000_000]
        steps = {"lazy": lazy(tables, adaptive=True)}
        # The same look-ups whatever the size: a hash of few ids over the whole table.
        growth.append(interleaved(steps, _Spread(tables[0]))["lazy"])
    print(f"train.embed.growth_1_to_16m: {growth[2] / growth[0]:.2f}")


class _Spread(Lookups):
    """As many distinct rows in a table of any size."""

    def __init__(self, num_rows: int) -> None:
        super().__init__([num_rows])
        self._ids = np.random.default_rng(5).permutation(np.linspace(0, num_rows - 1, 500_000).astype(np.int64))

    def rows(self) -> Tensor:
        chosen = self._generator.zipf(1.2, NUM_TABLES * BATCH) % len(self._ids)
        return torch.from_numpy(self._ids[chosen])


if __name__ == "__main__":
    main()
