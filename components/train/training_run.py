"""One run of training: its epochs, tests on the way, early stopping, and going on after a kill."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

from components.common.progress import log_line
from components.features.objectives import OBJECTIVE_NAMES
from components.ranker.dataset import ExampleSet
from components.train.curves import boundary_jumps, unseen_losses
from components.train.event_log import EventLog
from components.train.loader import ExampleStream
from components.train.resume import Position, ResumePoints
from components.train.single_stage import EngagementPairs
from components.train.trainer import Trainer
from components.train.training_state import TrainingState


@dataclass(frozen=True)
class Phase:
    """Epochs over one stream.

    Attributes:
        stream: The examples.
        epochs: Passes over them.
        test: Unseen examples to test on meanwhile, or None.
    """

    stream: ExampleStream
    epochs: int
    test: ExampleSet | None = None


class TrainingRun:
    """Trains a state through its phases; `run` after a kill ends with the same bits as without it."""

    def __init__(
        self,
        state: TrainingState,
        phases: list[Phase],
        points: ResumePoints,
        events: EventLog,
        pairs: EngagementPairs | None = None,
    ) -> None:
        """Train `state` in place."""
        config = state.config.without(state.lineage.left_out)
        step, parallel = state.lineage.step, state.of_model.parallel
        self.trainer = Trainer(state.model, state.optimizer, config, state.title, step, parallel, pairs)
        self._process = state.process
        self.position = Position()
        self._config, self._title, self._phases = config, state.title, phases
        self._points, self._events = points, events

    def run(self) -> None:
        """Train to the end, from the newest resume point if there is one."""
        resumed = self._points.load(self.trainer)
        if resumed is not None:
            self.position = resumed
            log_line("train", f"{self._title}: goes on after step {self.trainer.step}")
        self._events.start(self.trainer.step)
        try:
            for number in range(self.position.phase, len(self._phases)):
                if number > self.position.phase:
                    self.position = Position(phase=number, tests=self.position.tests, stopped=self.position.stopped)
                self._train_phase(self._phases[number])
        finally:
            self._events.close()

    def _train_phase(self, phase: Phase) -> None:
        adaptive, start = self._config.optimizer.frequency_adaptive, (self.position.epoch, self.position.batch)
        if adaptive is not None and adaptive.counts == "precomputed" and start == (0, 0):
            self.trainer.count_rows(phase.stream.parts())
        batch_size = self._config.batch_size
        for epoch in range(self.position.epoch, phase.epochs):
            if epoch > self.position.epoch:
                self.position.epoch, self.position.batch = epoch, 0
            first = self.position.batch
            seed = (self._config.seed * 1_000_003 + self.trainer.step - first) % 2**63
            self.trainer.train_epoch(
                phase.stream.shuffled(batch_size, seed, first),
                len(phase.stream),
                epoch,
                first,
                lambda done: self._after_step(done, phase),
            )
            if phase.test is not None and self.position.stopped:
                break
        if phase.test is not None and self._patience is not None and self._points_without_gain():
            self._go_back_to_best()

    def _after_step(self, done: int, phase: Phase) -> bool:
        self.position.batch = done
        curve = self.trainer.curve
        if curve.num_batches == 0 and curve.points:
            self._events.add("train", curve.points[-1])
        is_best = phase.test is not None and done in self._tested_after(phase.stream) and self._test(phase.test)
        if phase.test is not None and self._patience is not None and self._points_without_gain() >= self._patience:
            # Not saved: a run that goes on from an earlier point comes to the same end.
            self.position.stopped = True
            return False
        if self._points.is_due() or (is_best and self._patience is not None):
            self._points.save(self.trainer, self.position, best=is_best)
        return True

    @property
    def _patience(self) -> int | None:
        return self._config.test.patience if self._config.test else None

    def _tested_after(self, stream: ExampleStream) -> set[int]:
        assert self._config.test is not None
        total, points = stream.num_batches(self._config.batch_size), self._config.test.points_per_epoch
        return {-(-total * number // points) for number in range(1, points + 1)}

    def _test(self, examples: ExampleSet) -> bool:
        """Add a point to the test curve; whether it is the best so far."""
        self.trainer.parallel.eval()
        losses = unseen_losses(self.trainer.parallel, examples, self.trainer.device)
        self.trainer.parallel.train()
        # One judgement for all processes, whatever the last bits of each.
        losses = self._process.agreed(losses)
        if not torch.isfinite(losses).all():
            by_objective = dict(zip(OBJECTIVE_NAMES, losses.tolist(), strict=True))
            raise FloatingPointError(
                f"{self._title}: the test loss after step {self.trainer.step} is not finite: {by_objective}; lower "
                "optimizer.learning_rate"
            )
        point: dict[str, Any] = {"step": self.trainer.step, "epoch": self.position.epoch}
        point |= dict(zip(OBJECTIVE_NAMES, losses.tolist(), strict=True))
        self.position.tests.append(point)
        self._events.add("test", point)
        return self._points_without_gain() == 0

    def _total(self, point: dict[str, Any]) -> float:
        return sum(self._config.objective_weights.get(name, 1.0) * point[name] for name in OBJECTIVE_NAMES)

    def _points_without_gain(self) -> int:
        totals = [self._total(point) for point in self.position.tests]
        return len(totals) - 1 - totals.index(min(totals)) if totals else 0

    def _go_back_to_best(self) -> None:
        tests = self.position.tests
        best = self._points.go_back_to_best(self.trainer)
        log_line(
            "train",
            f"{self._title}: no lower test loss for {self._points_without_gain()} points; goes back to step "
            f"{self.trainer.step}",
        )
        self.position = Position(best.phase, best.epoch, best.batch, tests, self.position.stopped)

    def test_summary(self) -> dict[str, Any]:
        """What a checkpoint's manifest says of the tests: jumps at epoch boundaries in percent, and the end."""
        if not self.position.tests:
            return {}
        return {"jumps_percent": boundary_jumps(self.position.tests), "stopped_early": self.position.stopped}
