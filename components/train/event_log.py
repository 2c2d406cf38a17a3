"""Losses for TensorBoard while a run goes on."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from torch.utils.tensorboard import SummaryWriter

from components.common import storage
from components.common.filesystems import is_local
from components.features.objectives import OBJECTIVE_NAMES


class EventLog:
    """Event files of one run: `tensorboard --logdir <store>/tensorboard`. Nothing reads them but people."""

    def __init__(self, folder: str | None) -> None:
        """Write to a folder, in the end if it is remote, or nowhere."""
        self._folder = folder
        self._writer: SummaryWriter | None = None
        self._here: TemporaryDirectory[str] | None = None

    def start(self, step: int) -> None:
        """Open the files; what a killed run wrote for later steps is hidden."""
        if self._folder is not None:
            # An object store would get the whole file anew with every flush.
            self._here = None if is_local(self._folder) else TemporaryDirectory()
            self._writer = SummaryWriter(self._here.name if self._here else self._folder, purge_step=step + 1)

    def add(self, kind: str, point: dict[str, Any]) -> None:
        """Add the losses of a point, `train` or `test`."""
        if self._writer is not None:
            for name in OBJECTIVE_NAMES:
                self._writer.add_scalar(f"{name}/{kind}", point[name], point["step"])

    def close(self) -> None:
        """Write what is left."""
        if self._writer is not None:
            self._writer.close()
        if self._here is not None and self._folder is not None:
            for path in Path(self._here.name).iterdir():
                storage.upload(path, storage.join_uri(self._folder, path.name))
            self._here.cleanup()
