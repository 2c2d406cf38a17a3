"""Manifests: what a directory holds, what it was made from, and whether that is still so.

Between steps there are only files. A directory counts as existing when its manifest does, and a step whose manifest has
the key that it would write again has nothing to do. Each kind of directory has a record class of its own.
"""

from __future__ import annotations

import json
import posixpath
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Self, TypeVar

import numpy as np

from components.common import storage
from components.common.config import Config
from components.common.digests import canonical_json, digest_bytes, digest_json
from components.common.errors import InputError
from components.common.filesystems import is_local
from components.common.remembered import note_file, note_manifest, recall_file, recall_manifest


class FileEntry(Config):
    """One file of an artifact."""

    name: str
    num_bytes: int
    sha256: str


class Origin(Config):
    """What a directory was made from: equal keys mean that there is nothing to do.

    Attributes:
        step: The step that makes it.
        step_version: Version of what the step makes.
        inputs: Name to digest of everything that went in.
        settings: The resolved configuration that decides the content, or digests of its sections.
    """

    step: str
    step_version: int
    inputs: dict[str, str] = {}
    settings: dict[str, Any] = {}

    @property
    def key(self) -> str:
        """Digest of all of it."""
        return digest_json(self.model_dump(mode="json"))


@dataclass(frozen=True)
class Step:
    """A step, and the version of what it makes.

    Raise the version when the same inputs and settings must give another output: everything that the step has made is
    then made again when it is next asked for.
    """

    name: str
    version: int = 1

    def origin(self, inputs: dict[str, str] | None = None, settings: dict[str, Any] | None = None) -> Origin:
        """The origin of a directory that the step makes from these."""
        return Origin(step=self.name, step_version=self.version, inputs=inputs or {}, settings=settings or {})


class Manifest(Config):
    """The description of a finished directory; subclasses add what readers of their kind need.

    Attributes:
        kind: What the directory is, e.g. `examples`.
        schema_version: Version of the record's fields.
        is_remembered: Whether `remembering` keeps it.
        origin: What it was made from.
        files: The files beside the manifest, by name.
    """

    kind: ClassVar[str]
    schema_version: ClassVar[int] = 1
    is_remembered: ClassVar[bool] = False

    origin: Origin
    files: tuple[FileEntry, ...] = ()

    @classmethod
    def upgraded(cls, values: dict[str, Any], schema_version: int) -> dict[str, Any] | None:
        """The fields of a record that another release wrote, in this release's form; None if it must be made again."""
        return None

    @property
    def content_digest(self) -> str:
        """Digest of all files: equal digests mean equal bytes."""
        return digest_json([file.sha256 for file in self.files])

    def to_bytes(self) -> bytes:
        """What its file holds."""
        head = {"kind": self.kind, "schema_version": self.schema_version}
        return canonical_json({**head, **self.model_dump(mode="json")})

    @classmethod
    def from_bytes(cls, content: bytes, path: str) -> Self | None:
        """A record from its file; None if another release wrote it in a form that this one does not read.

        Raises:
            InputError: If it is no manifest, or one of another kind; `path` names the file.
        """
        try:
            values = json.loads(content)
            kind, schema_version = values.pop("kind"), int(values.pop("schema_version"))
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise InputError(f"{path}: not a manifest; {_remedy(path)}") from error
        if kind != cls.kind:
            raise InputError(f"{path}: describes {kind}, expected {cls.kind}; {_remedy(path)}")
        if schema_version != cls.schema_version:
            try:
                values = cls.upgraded(values, schema_version)
            except (ValueError, TypeError, KeyError, AttributeError) as error:
                raise InputError(f"{path}: no {kind} of form {schema_version}; {_remedy(path)}") from error
        return None if values is None else cls.parse(values, path)


M = TypeVar("M", bound=Manifest)
# Files whose bytes this process has compared: path, digest and state then.
_verified: set[tuple[str, str, str]] = set()


def _remedy(path: str) -> str:
    return f"delete {posixpath.dirname(path)} and run the step again"


def manifest_path(uri: str) -> str:
    """The file that describes a directory."""
    return storage.join_uri(uri, storage.MANIFEST_NAME)


def write_artifact(uri: str, manifest: M, write_files: Callable[[str], None]) -> M:
    """Fill a directory and describe it: files first, read back for their digests, the manifest last.

    Args:
        uri: The directory.
        manifest: Its description, without its files.
        write_files: Writes files into the directory that it is given.

    Returns:
        The manifest as written.
    """
    with storage.new_directory(uri) as folder:
        write_files(folder)
        entries = [describe_file(folder, name, size) for name, size in sorted(storage.list_sizes(folder).items())]
        return finish_directory(folder, manifest, entries)


def finish_directory(uri: str, manifest: M, files: Sequence[FileEntry]) -> M:
    """Describe a directory whose files are all there; from then on it exists for readers."""
    described = manifest.model_copy(update={"files": tuple(files)})
    note_manifest(manifest_path(uri), None)
    storage.write_bytes(manifest_path(uri), described.to_bytes())
    return described


def describe_file(directory: str, name: str, size: int | None = None) -> FileEntry:
    """Read a file back for its size and digest; `size` is what a listing says, if there was one."""
    num_bytes, sha256 = storage.measure(storage.join_uri(directory, name), size)
    return FileEntry(name=name, num_bytes=num_bytes, sha256=sha256)


def find_manifest(uri: str, kind: type[M]) -> M | None:
    """The manifest of a finished directory; None when there is none, or another release wrote it.

    Raises:
        InputError: If the manifest is not readable, or is of another kind.
    """
    path = manifest_path(uri)
    content = recall_manifest(path) if kind.is_remembered else None
    if content is None:
        content = storage.find_bytes(path)
        if kind.is_remembered:
            note_manifest(path, content)
    return None if content is None else kind.from_bytes(content, path)


def read_manifest(uri: str, kind: type[M]) -> M:
    """The manifest of a directory that must be finished.

    Raises:
        InputError: If there is none, or another release wrote it.
    """
    manifest = find_manifest(uri, kind)
    if manifest is None:
        known = "this release does not read" if storage.exists(manifest_path(uri)) else "no finished"
        raise InputError(f"{uri}: {known} {kind.kind} here; run the step that writes it")
    return manifest


def find_current(uri: str, kind: type[M], origin: Origin, listed: Collection[str] | None = None) -> M | None:
    """The manifest of a finished directory that was made from exactly this origin and has its files; else None.

    With `listed`, the addresses of all files around, the directory is not listed for that.
    """
    manifest = find_manifest(uri, kind)
    if manifest is None or manifest.origin.key != origin.key:
        return None
    if listed is None:
        listed = {storage.join_uri(uri, name) for name in storage.list_sizes(uri)} if manifest.files else ()
    return manifest if all(storage.join_uri(uri, entry.name) in listed for entry in manifest.files) else None


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
        _compare(posixpath.join(uri, entry.name), entry)


def verified_bytes(uri: str, manifest: Manifest, name: str) -> bytes:
    """The content of a file of a directory, which is read once for this.

    Raises:
        InputError: If the file is absent or differs.
    """
    entry = next((entry for entry in manifest.files if entry.name == name), None)
    path = posixpath.join(uri, name)
    if entry is None:
        raise InputError(f"{path}: not listed in the manifest; make the directory again")
    content = storage.find_bytes(path)
    _compare(path, entry, content)
    assert content is not None, "an absent file is an error"
    return content


def mapped_bytes(uri: str, manifest: Manifest, name: str) -> np.ndarray:
    """As `verified_bytes`, uint8, shape (size,); mapped into memory where the store is local."""
    if is_local(uri):
        verify_files(uri, manifest, (name,))
        return storage.map_bytes(storage.join_uri(uri, name))
    return np.frombuffer(verified_bytes(uri, manifest, name), dtype=np.uint8)


def verified_file(directory: str, entry: FileEntry) -> str:
    """The path of a described file whose bytes are those of its manifest.

    A process reads a file once for this, however often it asks: until the file's size, time or place changes.

    Raises:
        InputError: If the file is absent or differs.
    """
    path = storage.join_uri(directory, entry.name)
    state = storage.file_state(path)
    if (path, entry.sha256, state) not in _verified:
        _compare(path, entry)
        _verified.add((path, entry.sha256, state))
    return path


def verified_content(directory: str, entry: FileEntry) -> tuple[str, bytes | None]:
    """Likewise; with the bytes, if they are few and come from afar, so that nobody asks for them again."""
    path = storage.join_uri(directory, entry.name)
    if is_local(path) or entry.num_bytes > storage.WHOLE_BYTES:
        return verified_file(directory, entry), None
    content = recall_file(path, entry.sha256)
    if content is None:
        content = storage.find_bytes(path)
        _compare(path, entry, content)
        if content is not None:
            note_file(path, entry.sha256, content)
    return path, content


def verified_files(uri: str, manifest: Manifest) -> list[str]:
    """The paths of all files of a directory, likewise, in order."""
    return [verified_file(uri, entry) for entry in manifest.files]


def _compare(path: str, entry: FileEntry, content: bytes | None = None) -> None:
    remedy = f"delete {posixpath.dirname(path)}, and have it made or delivered again"
    try:
        if content is None:
            num_bytes, sha256 = storage.measure(path, entry.num_bytes)
        else:
            num_bytes, sha256 = len(content), digest_bytes(content)
    except FileNotFoundError as error:
        raise InputError(f"{path}: listed in the manifest, but absent; {remedy}") from error
    if sha256 != entry.sha256:
        raise InputError(
            f"{path}: {num_bytes} bytes that are not the {entry.num_bytes} bytes of the manifest; {remedy}"
        )
