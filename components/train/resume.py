"""Points from which a killed run goes on as if nothing had happened."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, ClassVar, TypeAlias

import torch

from components.common import storage
from components.common.digests import canonical_json
from components.common.errors import InputError
from components.common.layout import Store
from components.common.manifests import Manifest, Origin, find_manifest, verified_bytes
from components.common.progress import log_line
from components.train.trainer import Trainer
from components.train.training_state import TrainingState

_PROGRESS_FILE = "progress.json"
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


class ResumePointManifest(Manifest):
    """A point of a run.

    Attributes:
        best: Whether its test loss was the lowest so far.
    """

    kind: ClassVar[str] = "resume_point"

    best: bool


_Point: TypeAlias = tuple[str, ResumePointManifest]


class ResumePoints:
    """The points of one run: weights, optimizer, loss curves and position in the data."""

    def __init__(self, store: Store, state: TrainingState, origin: Origin) -> None:
        """Points of a run whose checkpoint will have this origin."""
        self._state, self._config, self._process = state, state.config.execution, state.process
        self._origin = origin
        self._root = store.resume_points(state.lineage.arm, state.lineage.trained_through)
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

        def write(folder: str) -> Iterator[str]:
            yield from self._state.write(folder)
            if self._process.is_first:
                storage.write_bytes(storage.join_uri(folder, _PROGRESS_FILE), canonical_json(progress))
                yield _PROGRESS_FILE

        uri = storage.join_uri(self._root, f"step={trainer.step:09d}")
        self._process.write_artifact(uri, ResumePointManifest(origin=self._origin, best=best), write)
        if self._process.is_first:
            self._prune(uri)

    def load(self, trainer: Trainer) -> Position | None:
        """Take over the newest point; None when this run has none; all processes at once.

        Points of other inputs or settings do not count; a damaged one is passed over for the one before it.
        """
        if self._process.is_first:
            storage.remove_unfinished(self._root)
        newest = self._newest()
        return self._take_over(*newest, trainer) if newest else None

    def go_back_to_best(self, trainer: Trainer) -> Position:
        """Take over the newest best point, and delete those after it; all processes at once."""
        best = self._newest(best=True)
        if best is None:
            raise InputError(f"{self._root}: the best point so far is damaged or gone; run the training again")
        position = self._take_over(*best, trainer)
        if self._process.is_first:
            for later, _ in self._points():
                if later > best[0]:
                    storage.remove(later)
        return position

    def _newest(self, best: bool = False) -> _Point | None:
        for uri, manifest in reversed(self._process.agreed(self._points() if self._process.is_first else None)):
            if best and not manifest.best:
                continue
            try:
                self._process.verify_files(uri, manifest)
            except InputError as error:
                log_line("train", f"{error}; going on from the point before it")
                continue
            return uri, manifest
        return None

    def _take_over(self, uri: str, manifest: ResumePointManifest, trainer: Trainer) -> Position:
        self._state.read(uri, manifest)
        progress = json.loads(verified_bytes(uri, manifest, _PROGRESS_FILE))
        trainer.step, curve = progress["step"], trainer.curve
        curve.points, curve.num_batches = progress["points"], progress["num_batches"]
        curve.sums = torch.tensor(progress["sums"], dtype=torch.float64)
        log_line("train", f"{self._state.lineage.arm}: goes on after step {trainer.step}")
        return Position(**progress["position"])

    def clear(self) -> None:
        """Delete all points: the run is finished."""
        if self._process.is_first:
            storage.remove(self._root)

    def _points(self) -> list[_Point]:
        """This run's points, oldest first; those of other inputs or settings are of no use, and deleted."""
        points = []
        for name in storage.list_names(self._root):
            uri = storage.join_uri(self._root, name)
            try:
                manifest = find_manifest(uri, ResumePointManifest)
            except InputError as error:
                log_line("train", f"{error}; going on from the point before it")
                manifest = None
            if manifest is None or manifest.origin.key != self._origin.key:
                storage.remove(uri)
            else:
                points.append((uri, manifest))
        return points

    def _prune(self, newest: str) -> None:
        points = [point for point in self._points() if point[0] <= newest]
        kept = {uri for uri, _ in points[-self._config.keep_resume_points :]}
        kept |= {uri for uri, manifest in [point for point in points if point[1].best][-1:]}
        for name in storage.list_names(self._root):
            uri = storage.join_uri(self._root, name)
            if uri not in kept:
                storage.remove(uri)
