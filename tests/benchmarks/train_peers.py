"""Whole training steps against FuxiCTR, DeepCTR-Torch and torch-rechub, one figure a line.

Equal DCNv2 nets on the same generated examples: 20 features, batch 2000, tables of 231 thousand rows with vectors of
16 (suffix `.small`) and of 2.03 million rows with vectors of 32. All variants train one epoch in one process with
pinned threads, in turns of ten steps; a speed is that of the median turn. Batches are made before the clock starts,
for all alike, and nothing is evaluated or logged while it runs. The semantics differ: the peers' Adam moves all rows
at every step, lazy Adam those of the batch; so AUC on rows held out stands beside each speed, and `afterclick_dense`
is this package with dense Adam, too, and `afterclick_bfloat16` with the net's matrix products in that precision.
"""

from __future__ import annotations

import contextlib
import statistics
import sys
import time
from typing import Any, Protocol

import numpy as np
import torch
from sklearn.metrics import roc_auc_score

from components.tables import memory
from tests.benchmarks.train_dcn import Afterclick, DcnNet
from tests.benchmarks.train_peers_models import DeepCtrTorch, FuxiCtr, TorchRechub
from tests.benchmarks.train_rows import BATCH, LARGE, SMALL, Rows, Size, draw_rows

NUM_THREADS, STEPS, STEPS_PER_TURN, WARM_UP_TURNS, HELD_OUT = 2, 200, 10, 1, 100_000
PEERS = ("fuxictr", "deepctr_torch", "torch_rechub")


class Variant(Protocol):
    """One library's model."""

    @property
    def model(self) -> torch.nn.Module:
        """Tables and net."""

    def batches(self, rows: Rows) -> Any:
        """Bring rows to the form that a step takes: not timed."""

    def train(self, batches: Any) -> None:
        """A step on each batch: timed."""

    def predict(self, rows: Rows) -> np.ndarray:
        """Probabilities, shape (n,)."""


def variants_of(size: Size) -> dict[str, Variant]:
    """All of them, new."""
    return {
        "afterclick": Afterclick(size),
        "afterclick_dense": Afterclick(size, tables="adam"),
        "afterclick_bfloat16": Afterclick(size, precision="bfloat16"),
        "fuxictr": FuxiCtr(size),
        "deepctr_torch": DeepCtrTorch(size),
        "torch_rechub": TorchRechub(size),
    }


def net_alone(size: Size) -> float:
    """Examples per second of the net on vectors that are there: no library is faster with it."""
    net, vectors = DcnNet(size.dim * len(size.names)), torch.randn(BATCH, size.dim * len(size.names))
    vectors.requires_grad_()
    optimizer, labels = torch.optim.Adam(net.parameters(), fused=True), torch.zeros(BATCH, 1)
    seconds = []
    for _ in range(STEPS // 4):
        start = time.perf_counter()
        optimizer.zero_grad()
        torch.nn.functional.binary_cross_entropy_with_logits(net(vectors), labels).backward()
        optimizer.step()
        seconds.append(time.perf_counter() - start)
    return BATCH / statistics.median(seconds[STEPS_PER_TURN:])


def train_in_turns(variants: dict[str, Variant], rows: Rows) -> dict[str, float]:
    """Train one epoch and return each variant's examples per second."""
    seconds: dict[str, list[float]] = {name: [] for name in variants}
    for part in rows.split(STEPS_PER_TURN * BATCH):
        for name, variant in variants.items():
            batches = variant.batches(part)
            start = time.perf_counter()
            variant.train(batches)
            seconds[name].append(time.perf_counter() - start)
    turn = STEPS_PER_TURN * BATCH
    return {name: turn / statistics.median(values[WARM_UP_TURNS:]) for name, values in seconds.items()}


def compare(size: Size) -> dict[str, float]:
    """Figures by name for one size."""
    torch.manual_seed(0)
    rows = draw_rows(size, STEPS * BATCH + HELD_OUT)
    training, held_out = rows[:-HELD_OUT], rows[-HELD_OUT:]
    variants = variants_of(size)
    for name, variant in variants.items():
        print(f"{name}: {sum(p.numel() for p in variant.model.parameters()):,} parameters")
    speeds = train_in_turns(variants, training)
    figures = {f"speedup_vs_{peer}": speeds["afterclick"] / speeds[peer] for peer in PEERS}
    figures |= {f"speedup_of_bfloat16_vs_{peer}": speeds["afterclick_bfloat16"] / speeds[peer] for peer in PEERS}
    figures |= {f"examples_per_second.{name}": speed for name, speed in speeds.items()}
    figures["examples_per_second.net_alone"] = net_alone(size)
    for name, variant in variants.items():
        figures[f"auc.{name}"] = float(roc_auc_score(held_out.labels, variant.predict(held_out)))
    return {f"train.step.{name}{size.suffix}": value for name, value in figures.items()}


def main() -> None:
    """Print the figures; what the libraries print goes to stderr."""
    torch.set_num_threads(NUM_THREADS)
    memory.reuse_buffers()
    figures: dict[str, float] = {}
    with contextlib.redirect_stdout(sys.stderr):
        for size in (SMALL, LARGE):
            figures |= compare(size)
    for name, value in figures.items():
        digits = 0 if ".examples_per_second." in name else 4 if ".auc." in name else 2
        print(f"{name}: {value:.{digits}f}")


if __name__ == "__main__":
    main()
