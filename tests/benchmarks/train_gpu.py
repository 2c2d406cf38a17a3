"""Look-up, backward and optimizer of 60 tables with two million rows on a GPU; one figure a line.

As tests.benchmarks.train, with the variants that run on a GPU: lazy Adam with FAL by the Triton kernel and by torch's
operations, FBGEMM's row-wise Adagrad, and torch's fused dense Adam.
"""

from __future__ import annotations

import statistics
import sys

import torch

from components.tables.config import OptimizerConfig
from components.tables.lazy_adam import LazyAdam
from components.tables.row_optimizer import RowOptimizer
from components.tables.rowwise_adagrad import RowwiseAdagrad
from tests.benchmarks.train import DIM, TABLE_ROWS, Lookups, Step, step_of, torch_adam

STEPS, WARM_UP = 200, 20


def row_optimizer(values: dict, with_kernel: bool = True) -> Step:
    """One of this package's."""
    config = OptimizerConfig.parse(values, "optimizer")
    weight = torch.randn(sum(TABLE_ROWS), DIM, device="cuda") * 0.01
    optimizer: RowOptimizer
    if config.tables == "rowwise_adagrad":
        optimizer = RowwiseAdagrad(weight, TABLE_ROWS, config)
    else:
        optimizer = LazyAdam(weight, TABLE_ROWS, config)
        if not with_kernel:
            optimizer._kernel = None

    return step_of(weight, optimizer)


def milliseconds(steps: dict[str, Step]) -> dict[str, float]:
    """Median of each variant, by the GPU's own clock, in turns."""
    lookups, times = Lookups(TABLE_ROWS), {name: [] for name in steps}  # type: ignore[var-annotated]
    for number in range(WARM_UP + STEPS):
        rows = lookups.rows().cuda()
        for name, step in steps.items():
            started, ended = (torch.cuda.Event(enable_timing=True) for _ in range(2))
            started.record()
            step(rows)
            ended.record()
            torch.cuda.synchronize()
            if number >= WARM_UP:
                times[name].append(started.elapsed_time(ended))
    return {name: statistics.median(values) for name, values in times.items()}


def main() -> None:
    """Print the figures."""
    if not torch.cuda.is_available():
        sys.exit("bench-gpu: torch finds no GPU here; install requirements/gpu.lock on a machine that has one")
    lazy = {"tables": "lazy_adam", "frequency_adaptive": {}}
    found = milliseconds(
        {
            "kernel": row_optimizer(lazy),
            "torch": row_optimizer(lazy, with_kernel=False),
            "adagrad": row_optimizer({"tables": "rowwise_adagrad"}),
            "fused_adam": torch_adam(TABLE_ROWS, sparse=False, fused=True, device="cuda"),
        }
    )
    print(f"train.gpu.embed.milliseconds: {found['kernel']:.2f}")
    for name in ("torch", "adagrad", "fused_adam"):
        print(f"train.gpu.embed.speedup_vs_{name}: {found[name] / found['kernel']:.2f}")


if __name__ == "__main__":
    main()
