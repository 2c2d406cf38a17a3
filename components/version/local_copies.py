"""Copies of a remote version's files on this machine's disk, to be mapped into memory."""

from __future__ import annotations

import os
import re
import shutil
from pathlib import Path

from components.common import storage
from components.common.errors import InputError
from components.common.manifests import verify_files
from components.version.manifest import VersionManifest

_PARTIAL = ".partial"
_DIGEST = re.compile("[0-9a-f]{64}")


def fetch_verified(uri: str, manifest: VersionManifest, name: str, folder: Path) -> Path:
    """A file of a version as a local copy; one that is there and whole is not fetched again.

    Args:
        uri: The version's directory in the store.
        manifest: Its description.
        name: The file.
        folder: Of the version's copies; one process at a time writes there.

    Raises:
        InputError: If the file is absent or damaged in the store.
        OSError: If the disk does not take it; what was written is deleted.
    """
    copy = folder / name
    if copy.exists():
        try:
            verify_files(str(folder), manifest, (name,))
            return copy
        except InputError:
            copy.unlink()
    folder.mkdir(parents=True, exist_ok=True)
    partial = folder / f"{name}{_PARTIAL}"
    try:
        storage.download(storage.join_uri(uri, name), partial)
        os.replace(partial, copy)
        verify_files(str(folder), manifest, (name,))
    except BaseException as error:
        for path in (partial, copy):
            path.unlink(missing_ok=True)
        if isinstance(error, FileNotFoundError | InputError):
            verify_files(uri, manifest, (name,))
        raise
    return copy


def keep_copies(folder: Path, digests: tuple[str, ...]) -> None:
    """Delete the copies of all other versions; what is mapped stays readable until it is let go.

    Nothing else in the folder is touched.
    """
    for path in folder.glob("*"):
        if _DIGEST.fullmatch(path.name) and path.name not in digests:
            shutil.rmtree(path)
