"""Points of a long run, from which a killed one goes on as if nothing had happened."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator
from typing import Any, ClassVar, TypeAlias

from components.common import storage
from components.common.digests import canonical_json
from components.common.errors import InputError
from components.common.manifests import Manifest, Origin, find_manifest, verified_bytes
from components.common.progress import log_line
from components.tables.processes import Process

_PROGRESS_FILE = "progress.json"


class ResumePointManifest(Manifest):
    """A point of a run.

    Attributes:
        best: Whether its test loss was the lowest so far.
    """

    kind: ClassVar[str] = "resume_point"

    best: bool


Point: TypeAlias = tuple[str, ResumePointManifest]


class PointFolder:
    """The points of one run, each with the state's files and a record of progress; all processes at once."""

    def __init__(self, step: str, root: str, origin: Origin, process: Process, keep: int) -> None:
        """Keep points of a run that makes something of this origin; `step` says in the log whose they are."""
        self._step, self._root, self._origin, self._process, self._keep = step, root, origin, process, keep

    def save(
        self, number: int, progress: dict[str, Any], write: Callable[[str], Iterable[str]], best: bool = False
    ) -> None:
        """Write a point, and delete older ones; the newest that is marked as best stays.

        Args:
            number: Of steps done.
            progress: What the run needs beside its state.
            write: Writes this process's files of the state into a folder; gives their names.
            best: Whether this point may be gone back to.
        """

        def write_files(folder: str) -> Iterator[str]:
            yield from write(folder)
            if self._process.is_first:
                storage.write_bytes(storage.join_uri(folder, _PROGRESS_FILE), canonical_json(progress))
                yield _PROGRESS_FILE

        uri = storage.join_uri(self._root, f"step={number:09d}")
        self._process.write_artifact(uri, ResumePointManifest(origin=self._origin, best=best), write_files)
        if self._process.is_first:
            self._prune(uri)

    def newest(self, best: bool = False) -> Point | None:
        """The newest undamaged point, or the newest of the best; None if there is none.

        Points of other inputs or settings do not count; a damaged one is passed over for the one before it.
        """
        if self._process.is_first:
            storage.remove_unfinished(self._root)
        for uri, manifest in reversed(self._process.agreed(self._points() if self._process.is_first else None)):
            if best and not manifest.best:
                continue
            try:
                self._process.verify_files(uri, manifest)
            except InputError as error:
                log_line(self._step, f"{error}; going on from the point before it")
                continue
            return uri, manifest
        return None

    @staticmethod
    def progress(point: Point) -> dict[str, Any]:
        """What `save` was given."""
        return dict(json.loads(verified_bytes(*point, _PROGRESS_FILE)))

    def forget_after(self, point: Point) -> None:
        """Delete the points after one."""
        if self._process.is_first:
            for later, _ in self._points():
                if later > point[0]:
                    storage.remove(later)

    def clear(self) -> None:
        """Delete all points: the run is finished."""
        if self._process.is_first:
            storage.remove(self._root)

    def _points(self) -> list[Point]:
        """This run's points, oldest first; those of other inputs or settings are of no use, and deleted."""
        points = []
        for name in storage.list_names(self._root):
            uri = storage.join_uri(self._root, name)
            try:
                manifest = find_manifest(uri, ResumePointManifest)
            except InputError as error:
                log_line(self._step, f"{error}; going on from the point before it")
                manifest = None
            if manifest is None or manifest.origin.key != self._origin.key:
                storage.remove(uri)
            else:
                points.append((uri, manifest))
        return points

    def _prune(self, newest: str) -> None:
        points = [point for point in self._points() if point[0] <= newest]
        kept = {uri for uri, _ in points[-self._keep :]}
        kept |= {uri for uri, manifest in [point for point in points if point[1].best][-1:]}
        for name in storage.list_names(self._root):
            uri = storage.join_uri(self._root, name)
            if uri not in kept:
                storage.remove(uri)
