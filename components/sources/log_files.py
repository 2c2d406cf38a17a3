"""The files of a log: which are read, in which format, and which are not."""

from __future__ import annotations

import glob
import posixpath
from dataclasses import dataclass
from datetime import date

from components.common import filesystems, storage
from components.common.errors import InputError

PARQUET, CSV, JSON = "parquet", "csv", "json"
_FORMATS = {
    **dict.fromkeys((".parquet", ".pq", ".parq"), PARQUET),
    **dict.fromkeys((".csv", ".tsv"), CSV),
    **dict.fromkeys((".json", ".jsonl", ".ndjson"), JSON),
}
_COMPRESSED = (".gz", ".zst")
_DAY_PREFIX = "event_date="
# By convention of Spark, Hive and file systems: marks, checksums and the like.
_HIDDEN = ("_", ".")


@dataclass(frozen=True)
class FoundFiles:
    """The files of a log, or of one of its days.

    Attributes:
        uri: Where they were looked for.
        format: `parquet`, `csv` or `json`; all have the same.
        names: By address, each file's place below `uri`.
        left_out: Files there that are not read.
    """

    uri: str
    format: str
    names: dict[str, str]
    left_out: tuple[str, ...] = ()

    @property
    def states(self) -> dict[str, str]:
        """What changes when a file is written anew, by name."""
        return {name: storage.file_state(uri) for uri, name in self.names.items()}


def find_files(uri: str) -> FoundFiles | None:
    """All files that a file's address, a pattern or a folder stands for; None where there are none.

    Raises:
        InputError: If they have several formats.
    """
    fs, path = filesystems.filesystem(uri)
    if glob.has_magic(path):
        found, base = fs.glob(path), posixpath.dirname(path.split("*")[0])
    elif fs.isfile(path):
        found, base = [path], posixpath.dirname(path)
    else:
        fs.invalidate_cache(path)
        found, base = fs.find(path) if fs.isdir(path) else [], path.rstrip("/")
    formats: dict[str, str] = {}
    names, left_out = {}, []
    for file in sorted(found):
        name = posixpath.relpath(file, base)
        known = _format_of(name)
        if known is None or any(part.startswith(_HIDDEN) for part in name.split("/")):
            left_out.append(name)
            continue
        formats.setdefault(known, name)
        names[fs.unstrip_protocol(file) if "://" in uri else file] = name
    if len(formats) > 1:
        raise InputError(
            f"{uri}: holds {' and '.join(f'{kind} ({name})' for kind, name in sorted(formats.items()))}; name the "
            "files of one format by a pattern, such as *.parquet"
        )
    return FoundFiles(uri, next(iter(formats)), names, tuple(left_out)) if formats else None


def _format_of(name: str) -> str | None:
    plain = name.lower()
    for suffix in _COMPRESSED:
        plain = plain.removesuffix(suffix)
    return _FORMATS.get(posixpath.splitext(plain)[1])


def day_folders(uri: str) -> dict[date, str]:
    """The folders `event_date=YYYY-MM-DD` directly in a folder, by day; empty for logs that are kept otherwise.

    Raises:
        InputError: If such a name has no day.
    """
    fs, path = filesystems.filesystem(uri)
    folders = {}
    for name in [] if glob.has_magic(path) else storage.list_names(uri):
        if name.startswith(_DAY_PREFIX):
            folder = storage.join_uri(uri, name)
            try:
                folders[date.fromisoformat(name.removeprefix(_DAY_PREFIX))] = folder
            except ValueError as error:
                raise InputError(f"{folder}: names no day; rename it, or move it away") from error
    return folders


def beside_folders(uri: str) -> list[str]:
    """What lies beside the folders of days, and is not read."""
    return [name for name in storage.list_names(uri) if not name.startswith((_DAY_PREFIX, *_HIDDEN))]
