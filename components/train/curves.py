"""Losses over training: of the batches, and of unseen rows at some points."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from components.features.objectives import OBJECTIVE_NAMES
from components.ranker.batch import Batch
from components.ranker.dataset import ExampleSet
from components.ranker.ranker import objective_losses

_TEST_BATCH = 8192


@dataclass
class LossCurve:
    """Mean loss of each objective over stretches of training.

    Attributes:
        points: One record per stretch: `step`, `epoch`, `examples` and a loss per objective, in nats.
    """

    points: list[dict[str, Any]] = field(default_factory=list)
    sums: Tensor = field(default_factory=lambda: torch.zeros(len(OBJECTIVE_NAMES), dtype=torch.float64))
    num_batches: int = 0

    def add(self, losses: Tensor) -> None:
        """Add one batch's losses."""
        self.sums += losses.detach().to("cpu", torch.float64)
        self.num_batches += 1

    def close_point(self, step: int, epoch: int, examples: int) -> None:
        """End a stretch."""
        means = (self.sums / max(self.num_batches, 1)).tolist()
        point = {"step": step, "epoch": epoch, "examples": examples}
        self.points.append(point | dict(zip(OBJECTIVE_NAMES, means, strict=True)))
        self.sums.zero_()
        self.num_batches = 0


@torch.no_grad()
def unseen_losses(predict: Callable[[Batch], Tensor], examples: ExampleSet, device: torch.device) -> Tensor:
    """Mean loss of each objective over the rows that take part, in nats, float64, shape (objectives,).

    Args:
        predict: From a batch to logits, in evaluation mode.
        examples: Unseen rows.
        device: Of the model.
    """
    taking_part = examples.masks.sum(dim=0).to(device)
    total = torch.zeros(len(OBJECTIVE_NAMES), dtype=torch.float64, device=device)
    for batch in examples.in_order(_TEST_BATCH):
        moved = batch.to(device)
        total += objective_losses(predict(moved), moved, taking_part)
    return total.cpu()


def boundary_jumps(points: list[dict[str, Any]]) -> list[dict[str, float]]:
    """Change of each objective's test loss over every epoch boundary, in percent: first point after by last before."""
    jumps = []
    for before, after in zip(points, points[1:], strict=False):
        if after["epoch"] == before["epoch"] + 1:
            jumps.append({name: (after[name] / before[name] - 1) * 100 for name in OBJECTIVE_NAMES if before[name]})
    return jumps
