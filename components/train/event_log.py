"""Losses for TensorBoard while a run goes on."""

from __future__ import annotations

from typing import Any

from torch.utils.tensorboard import SummaryWriter

from components.features.objectives import OBJECTIVE_NAMES


class EventLog:
    """Event files of one run: `tensorboard --logdir <store>/tensorboard`. Nothing reads them but people."""

    def __init__(self, folder: str | None) -> None:
        """Write to a folder, or nowhere."""
        self._folder = folder
        self._writer: SummaryWriter | None = None

    def start(self, step: int) -> None:
        """Open the files; what a killed run wrote for later steps is hidden."""
        if self._folder is not None:
            self._writer = SummaryWriter(self._folder, purge_step=step + 1)

    def add(self, kind: str, point: dict[str, Any]) -> None:
        """Add the losses of a point, `train` or `test`."""
        if self._writer is not None:
            for name in OBJECTIVE_NAMES:
                self._writer.add_scalar(f"{name}/{kind}", point[name], point["step"])

    def close(self) -> None:
        """Write what is left."""
        if self._writer is not None:
            self._writer.close()
