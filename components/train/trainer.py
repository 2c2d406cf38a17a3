"""The training loop."""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from components.common.objectives import OBJECTIVE_NAMES
from components.common.progress import Progress
from components.train.batch import Batch
from components.train.config import TrainConfig
from components.train.model.ranker import Ranker
from components.train.optimizer import RankerOptimizer


@dataclass
class LossCurve:
    """Mean loss of each objective over stretches of training.

    Attributes:
        points: One record per stretch: `step`, `epoch`, `examples` and a loss per objective, in nats.
    """

    points: list[dict[str, Any]] = field(default_factory=list)
    _sums: Tensor = field(default_factory=lambda: torch.zeros(len(OBJECTIVE_NAMES), dtype=torch.float64))
    _batches: int = 0

    def add(self, losses: Tensor) -> None:
        """Add one batch's losses."""
        self._sums += losses.detach().to(torch.float64)
        self._batches += 1

    def close_point(self, step: int, epoch: int, examples: int) -> None:
        """End a stretch."""
        means = (self._sums / max(self._batches, 1)).tolist()
        point = {"step": step, "epoch": epoch, "examples": examples}
        self.points.append(point | dict(zip(OBJECTIVE_NAMES, means, strict=True)))
        self._sums.zero_()
        self._batches = 0


class Trainer:
    """Trains a ranker on batches, keeping count of the steps taken."""

    def __init__(
        self, model: Ranker, optimizer: RankerOptimizer, config: TrainConfig, name: str, step: int = 0
    ) -> None:
        """Continue from `step` steps already taken; `name` is shown with the progress."""
        self.model, self.optimizer, self.step = model, optimizer, step
        self.curve = LossCurve()
        self._config, self._name = config, name
        self._weights = torch.tensor([config.objective_weights.get(name, 1.0) for name in OBJECTIVE_NAMES])

    def train_step(self, batch: Batch) -> None:
        """One update.

        Raises:
            FloatingPointError: If the loss is not finite; the model is as it was before the batch.
        """
        self.optimizer.zero_grad()
        total, losses = self.model.loss(batch, self._weights)
        if not torch.isfinite(total):
            found = dict(zip(OBJECTIVE_NAMES, losses.tolist(), strict=True))
            raise FloatingPointError(
                f"{self._name}: the loss at step {self.step} is not finite: {found}; lower optimizer.learning_rate "
                "or set optimizer.max_gradient_norm"
            )
        total.backward()
        if self._config.optimizer.max_gradient_norm is not None:
            torch.nn.utils.clip_grad_norm_(self.model.net.parameters(), self._config.optimizer.max_gradient_norm)
        self.optimizer.step()
        self.step += 1
        self.curve.add(losses)

    def count_rows(self, batches: Iterable[Batch]) -> None:
        """Count the look-ups of all examples ahead of training on them."""
        assert self.optimizer.tables is not None
        for batch in batches:
            self.optimizer.tables.count(self.model.embeddings.rows(batch.sparse))

    def train_epoch(self, batches: Iterable[Batch], num_batches: int, epoch: int) -> None:
        """Train on all batches; a point of the loss curve ends every `steps_per_point` steps, and with the last."""
        self.optimizer.start_epoch(epoch, self._config.seed)
        self.model.train()
        started, examples = time.monotonic(), 0
        progress = Progress(f"{self._name} epoch {epoch + 1}", num_batches)
        for number, batch in enumerate(batches, start=1):
            self.train_step(batch)
            examples += len(batch.dense)
            if number % self._config.steps_per_point == 0 or number == num_batches:
                self.curve.close_point(self.step, epoch, examples)
            progress.update(number, f"{examples / (time.monotonic() - started):,.0f} examples/s")
