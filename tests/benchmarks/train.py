"""Embedding look-up, backward and optimizer of 60 tables, 2.03 million rows, batch 2000, dim 32; one figure a line.

All variants take turns in one process with pinned threads; figures are medians of steps. The semantics differ: dense
Adam also moves rows that are not in the batch, SparseAdam and the lazy Adam do not.
"""

from __future__ import annotations

import random
import statistics
import sys
import time
from collections.abc import Callable
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from components.features.feature_kinds import CategoricalFeature, SequenceFeature
from components.features.feature_list import FeatureConfig
from components.features.objectives import OBJECTIVES
from components.ranker.batch import Batch
from components.ranker.ranker import Ranker
from components.tables import memory
from components.tables.config import OptimizerConfig
from components.tables.embeddings import look_up_rows
from components.tables.lazy_adam import LazyAdam
from components.tables.optimizer import ModelOptimizer
from components.tables.row_optimizer import RowOptimizer
from components.tables.rows import RowGradients
from components.tables.rowwise_adagrad import RowwiseAdagrad
from components.tables.sparse_ids import make_sparse
from components.train.config import TrainConfig
from components.train.trainer import Trainer

NUM_TABLES, DIM, BATCH, NUM_THREADS = 60, 32, 2000, 2
STEPS, WARM_UP = 30, 3
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
def _gradients(count: int, device: torch.device) -> Tensor:
    return torch.randn(count, DIM, device=device) * 1e-4


def gradient_of(rows: Tensor) -> Tensor:
    """What comes back from the net: ready-made, so that only tables and optimizer are timed."""
    return _gradients(len(rows), rows.device)


def lazy(table_rows: list[int], adaptive: bool) -> Step:
    """This package's."""
    weight = memory.zeros(sum(table_rows), DIM).normal_(std=0.01)
    values = {"tables": "lazy_adam", "frequency_adaptive": {} if adaptive else None}
    optimizer = LazyAdam(weight, table_rows, OptimizerConfig.parse(values, "optimizer"))

    return step_of(weight, optimizer)


def step_of(weight: Tensor, optimizer: RowOptimizer) -> Step:
    """Look-up, backward and update by one of this package's optimizers."""
    # Memory is taken at the first touch: as after many steps, all of it is there before the clock starts.
    for state in optimizer.row_state.values():
        (state.view(torch.int32) if state.dtype == torch.uint32 else state).zero_()

    def step(rows: Tensor) -> None:
        look_up_rows(weight, rows)
        optimizer.step(RowGradients(rows, torch.ones_like(rows), gradient_of(rows)))

    return step


def rowwise_adagrad(table_rows: list[int]) -> Step:
    """FBGEMM's, on a copy of what `lazy` has."""
    weight = memory.zeros(sum(table_rows), DIM).normal_(std=0.01)
    optimizer = RowwiseAdagrad(weight, table_rows, OptimizerConfig.parse({"tables": "rowwise_adagrad"}, "optimizer"))
    optimizer.sum_of_squares.zero_()
    fbgemm = optimizer.fbgemm
    assert fbgemm is not None

    def step(rows: Tensor) -> None:
        fbgemm(rows, torch.arange(len(rows) + 1)).backward(gradient_of(rows))

    return step


def whole_step(adaptive: bool) -> Step:
    """A training step of the ranker on these tables, with a net of the default size."""
    names = [f"id_{number}" for number in range(NUM_TABLES)]
    tables = [CategoricalFeature(name=name, num_rows=rows) for name, rows in zip(names, TABLE_ROWS, strict=True)]
    features = FeatureConfig(categorical=tuple(tables), sequence=SequenceFeature(length=1, entities=()))
    optimizer = {"tables": "lazy_adam", "frequency_adaptive": {} if adaptive else None}
    values = {"batch_size": BATCH, "model": {"embedding_dim": DIM}, "optimizer": optimizer}
    config = TrainConfig.parse(values, "benchmark")
    ranker = Ranker(features, config.model).train()
    trainer = Trainer(ranker, ModelOptimizer(ranker, config.optimizer), config, "benchmark")
    starts = torch.tensor([ranker.embeddings.first_rows[name] for name in names])
    labels, no_sequence = (torch.rand(BATCH, len(OBJECTIVES)) < 0.2).float(), torch.zeros(BATCH, 1, 2).long()

    def step(rows: Tensor) -> None:
        ids = rows.view(NUM_TABLES, BATCH).t() - starts
        sparse = make_sparse(features, ids, no_sequence, torch.zeros(BATCH, dtype=torch.int64))
        dense, no_vectors = torch.zeros(BATCH, len(features.dense_names)), torch.zeros(BATCH, 0)
        trainer.train_step(Batch(sparse, no_vectors, dense, labels, torch.ones_like(labels)))

    return step


def torch_adam(table_rows: list[int], sparse: bool, fused: bool = False, device: str = "cpu") -> Step:
    """`nn.Embedding` with torch's own optimizers."""
    table = torch.nn.Embedding(sum(table_rows), DIM, sparse=sparse, device=device)
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
    tables = [memory.zeros(sum(table_rows), DIM) for _ in range(3)]

    def step(rows: Tensor) -> None:
        distinct = torch.unique(rows)
        start = time.perf_counter()
        tables[0].index_select(0, rows)
        for table in tables:
            table.index_copy_(0, distinct, table.index_select(0, distinct))
        _BOUND.append(time.perf_counter() - start)

    return step


_BOUND: list[float] = []


def interleaved(steps: dict[str, Step], lookups: dict[str, Lookups] | Lookups, count: int = STEPS) -> dict[str, float]:
    """Median milliseconds of each variant; which one comes after which changes from step to step."""
    order = random.Random(1)
    times: dict[str, list[float]] = {name: [] for name in steps}
    for number in range(count + WARM_UP):
        shared = lookups.rows() if isinstance(lookups, Lookups) else None
        for name in order.sample(list(steps), len(steps)):
            rows = lookups[name].rows() if isinstance(lookups, dict) else shared
            start = time.perf_counter()
            steps[name](rows)
            if number >= WARM_UP:
                times[name].append(1e3 * (time.perf_counter() - start))
    found = {name: statistics.median(values) for name, values in times.items()}
    print("  " + ", ".join(f"{name} {value:.1f} ms" for name, value in found.items()), file=sys.stderr)
    return found


def main() -> None:
    """Print the figures."""
    torch.set_num_threads(NUM_THREADS)
    memory.reuse_buffers()
    torch.manual_seed(0)
    found = interleaved(
        {
            "lazy": lazy(TABLE_ROWS, adaptive=True),
            "adagrad": rowwise_adagrad(TABLE_ROWS),
            "sparse": torch_adam(TABLE_ROWS, sparse=True),
            "bound": bandwidth(TABLE_ROWS),
            "adam": torch_adam(TABLE_ROWS, sparse=False),
            "fused": torch_adam(TABLE_ROWS, sparse=False, fused=True),
        },
        Lookups(TABLE_ROWS),
    )
    print(f"train.embed.milliseconds: {found['lazy']:.1f}")
    print(f"train.embed.speedup_vs_adam: {found['adam'] / found['lazy']:.1f}")
    print(f"train.embed.speedup_vs_fused_adam: {found['fused'] / found['lazy']:.1f}")
    print(f"train.embed.speedup_vs_sparse_adam: {found['sparse'] / found['lazy']:.1f}")
    print(f"train.embed.speedup_vs_rowwise_adagrad: {found['adagrad'] / found['lazy']:.2f}")
    print(f"train.embed.ratio_to_bandwidth: {found['lazy'] / (1e3 * statistics.median(_BOUND)):.2f}")
    pair = {"plain": lazy(TABLE_ROWS, adaptive=False), "adaptive": lazy(TABLE_ROWS, adaptive=True)}
    found = interleaved(pair, Lookups(TABLE_ROWS), 10 * STEPS)
    print(f"train.fal.overhead: {found['adaptive'] / found['plain'] - 1:.3f}")
    steps = {"plain": whole_step(adaptive=False), "adaptive": whole_step(adaptive=True)}
    found = interleaved(steps, Lookups(TABLE_ROWS), 2 * STEPS)
    print(f"train.fal.overhead_of_step: {found['adaptive'] / found['plain'] - 1:.3f}")
    sizes = {f"{millions}m": millions * 1_000_000 for millions in (1, 4, 16)}
    found = interleaved(
        {name: lazy([size], adaptive=True) for name, size in sizes.items()},
        {name: _Spread(size) for name, size in sizes.items()},
        5 * STEPS,
    )
    print(f"train.embed.growth_1_to_16m: {found['16m'] / found['1m']:.2f}")


class _Spread(Lookups):
    """The same look-ups in a table of any size: as many different rows, spread over all of it."""

    def __init__(self, num_rows: int) -> None:
        super().__init__([num_rows])
        self._ids = np.random.default_rng(5).permutation(np.linspace(0, num_rows - 1, 500_000).astype(np.int64))

    def rows(self) -> Tensor:
        chosen = self._generator.zipf(1.2, NUM_TABLES * BATCH) % len(self._ids)
        return torch.from_numpy(self._ids[chosen])


if __name__ == "__main__":
    main()
