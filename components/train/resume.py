"""Points from which a killed run goes on as if nothing had happened."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import Any

import torch

from components.common.errors import InputError
from components.common.layout import Store
from components.common.manifests import Origin
from components.common.progress import log_line
from components.tables.resume_points import Point, PointFolder
from components.train.trainer import Trainer
from components.train.training_state import TrainingState

_STEPS_BETWEEN_AGREEMENTS = 20


@dataclass
class Position:
    """How far a run is.

    Attributes:
        phase: Number of the phase: the batch days, and what follows them.
        epoch: Number of the epoch in the phase.
        batch: Batches done in the epoch.
        tests: Points of the test curve so far.
        stopped: Whether early stopping has ended the first phase.
    """

    phase: int = 0
    epoch: int = 0
    batch: int = 0
    tests: list[dict[str, Any]] = field(default_factory=list)
    stopped: bool = False


class ResumePoints:
    """The points of one run: weights, optimizer, loss curves and position in the data."""

    def __init__(self, store: Store, state: TrainingState, origin: Origin) -> None:
        """Points of a run whose checkpoint will have this origin."""
        self._state, self._config, self._process = state, state.config.execution, state.process
        root = store.resume_points(state.lineage.arm, state.lineage.trained_through)
        self._root, keep = root, self._config.keep_resume_points
        self._points = PointFolder("train", root, origin, state.process, keep)
        self._saved_at, self._steps = time.monotonic(), 0

    def is_due(self) -> bool:
        """Whether it is time for a point; called once after every step."""
        self._steps += 1
        if self._config.resume_steps is not None:
            return self._steps % self._config.resume_steps == 0
        if not self._process.is_alone and self._steps % _STEPS_BETWEEN_AGREEMENTS:
            return False
        return bool(self._process.agreed(time.monotonic() - self._saved_at >= 60 * self._config.resume_minutes))

    def save(self, trainer: Trainer, position: Position, best: bool = False) -> None:
        """Write a point, and delete older ones; the newest that is marked as best stays; all processes at once."""
        self._saved_at, curve = time.monotonic(), trainer.curve
        progress = {"position": vars(position), "step": trainer.step}
        progress |= {"points": curve.points, "num_batches": curve.num_batches, "sums": curve.sums.tolist()}
        self._points.save(trainer.step, progress, self._state.of_model.write, best)

    def load(self, trainer: Trainer) -> Position | None:
        """Take over the newest point; None when this run has none; all processes at once.

        Points of other inputs or settings do not count; a damaged one is passed over for the one before it.
        """
        newest = self._points.newest()
        return self._take_over(newest, trainer) if newest else None

    def go_back_to_best(self, trainer: Trainer) -> Position:
        """Take over the newest best point, and delete those after it; all processes at once."""
        best = self._points.newest(best=True)
        if best is None:
            raise InputError(f"{self._root}: the best point so far is damaged or gone; run the training again")
        position = self._take_over(best, trainer)
        self._points.forget_after(best)
        return position

    def _take_over(self, point: Point, trainer: Trainer) -> Position:
        self._state.of_model.read(*point)
        progress = self._points.progress(point)
        trainer.step, curve = progress["step"], trainer.curve
        curve.points, curve.num_batches = progress["points"], progress["num_batches"]
        curve.sums = torch.tensor(progress["sums"], dtype=torch.float64)
        log_line("train", f"{self._state.lineage.arm}: goes on after step {trainer.step}")
        return Position(**progress["position"])

    def clear(self) -> None:
        """Delete all points: the run is finished."""
        self._points.clear()
