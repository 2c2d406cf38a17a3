"""Manifests: what a directory holds, what it was made from, and whether that is still so.

Between steps there are only files. A directory counts as existing when its manifest does, and a step whose manifest has
the key that it would write again has nothing to do.
"""

from __future__ import annotations

import posixpath
from collections.abc import Callable
from typing import Any

from components.common import storage
from components.common.config import Config
from components.common.digests import canonical_json, digest_json
from components.common.errors import InputError

SCHEMA_VERSION = 1


class FileEntry(Config):
    """One file of an artifact."""

    name: str
    num_bytes: int
    sha256: str


class Manifest(Config):
    """The description of a finished directory.

    Attributes:
        kind: What the directory is, e.g. `examples`.
        schema_version: Version of the layout of this kind of directory.
        inputs: Name to digest of everything that went in.
        settings: The resolved configuration that made it.
        counts: Rows and events, by name.
        details: What else readers of this kind need.
        files: The files beside the manifest, by name.
    """

    kind: str
    schema_version: int = SCHEMA_VERSION
    inputs: dict[str, str] = {}
    settings: dict[str, Any] = {}
    counts: dict[str, int] = {}
    details: dict[str, Any] = {}
    files: list[FileEntry] = []

    @property
    def content_digest(self) -> str:
        """Digest of all files: equal digests mean equal bytes."""
        return digest_json([file.sha256 for file in self.files])

    @property
    def key(self) -> str:
        """Digest of what the directory was made from: equal keys mean that there is nothing to do."""
        return artifact_key(self.kind, self.inputs, self.settings)


def artifact_key(kind: str, inputs: dict[str, str], settings: dict[str, Any]) -> str:
    """The key that an artifact made from these inputs under these settings has."""
    return digest_json([kind, SCHEMA_VERSION, inputs, settings])


def write_artifact(uri: str, manifest: Manifest, write_files: Callable[[str], dict[str, Any] | None]) -> Manifest:
    """Fill a directory and describe it: files first, read back for their digests, the manifest last.

    Args:
        uri: The directory.
        manifest: What is known before writing.
        write_files: Writes files into the directory that it is given; may return manifest fields to set.

    Returns:
        The manifest as written.
    """
    with storage.staged_directory(uri) as staged:
        changes = write_files(staged) or {}
        files = [_describe_file(staged, name) for name in storage.list_names(staged)]
        manifest = Manifest(**{**manifest.model_dump(), **changes, "files": files})
        storage.write_bytes(
            storage.join_uri(staged, storage.MANIFEST_NAME), canonical_json(manifest.model_dump(mode="json"))
        )
    return manifest


def _describe_file(directory: str, name: str) -> FileEntry:
    num_bytes, sha256 = storage.measure(storage.join_uri(directory, name))
    return FileEntry(name=name, num_bytes=num_bytes, sha256=sha256)


def find_manifest(uri: str, kind: str) -> Manifest | None:
    """The manifest of a finished directory, or None when there is none.

    Raises:
        InputError: If the manifest is not readable, or is of another kind or schema version.
    """
    path = storage.join_uri(uri, storage.MANIFEST_NAME)
    if not storage.exists(path):
        return None
    try:
        manifest = Manifest.model_validate_json(storage.read_bytes(path))
    except ValueError as error:
        raise InputError(f"{path}: not a manifest; delete {uri} and run the step again") from error
    if manifest.kind != kind or manifest.schema_version != SCHEMA_VERSION:
        raise InputError(
            f"{path}: holds {manifest.kind} version {manifest.schema_version}, expected {kind} version {SCHEMA_VERSION}"
        )
    return manifest


def read_manifest(uri: str, kind: str) -> Manifest:
    """The manifest of a directory that must be finished.

    Raises:
        InputError: If there is none.
    """
    manifest = find_manifest(uri, kind)
    if manifest is None:
        raise InputError(f"{uri}: no finished {kind} here; run the step that writes it")
    return manifest


def verify_files(uri: str, manifest: Manifest, names: tuple[str, ...] = ()) -> None:
    """Compare every file, or those named, with its digest.

    Raises:
        InputError: Naming the file that is absent or differs.
    """
    described = {entry.name: entry for entry in manifest.files}
    missing = [name for name in names if name not in described]
    if missing:
        raise InputError(f"{posixpath.join(uri, missing[0])}: not listed in the manifest; make the directory again")
    for entry in [described[name] for name in names or described]:
        path = posixpath.join(uri, entry.name)
        if not storage.exists(path):
            raise InputError(f"{path}: listed in the manifest, but absent; make the directory again")
        num_bytes, sha256 = storage.measure(path)
        if sha256 != entry.sha256:
            raise InputError(
                f"{path}: {num_bytes} bytes that are not the {entry.num_bytes} bytes of the manifest; "
                "make the directory again"
            )


def is_current(uri: str, kind: str, inputs: dict[str, str], settings: dict[str, Any]) -> bool:
    """Whether a finished directory was made from exactly these inputs and settings, and has its files."""
    manifest = find_manifest(uri, kind)
    if manifest is None or manifest.key != artifact_key(kind, inputs, settings):
        return False
    return all(storage.exists(posixpath.join(uri, entry.name)) for entry in manifest.files)
