"""Reading and writing on any fsspec filesystem, so that nothing half-written is ever read.

A file appears whole: object stores put it in one piece, elsewhere it is written under a temporary name and renamed. A
directory is complete when it holds `MANIFEST_NAME`, which arrives last: on object stores it is filled in its place,
elsewhere beside it, and renamed. A request to an object store takes tens of milliseconds: one that can say all is sent
once.
"""

from __future__ import annotations

import errno
import glob
import hashlib
import os
import posixpath
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from fsspec.implementations.local import LocalFileSystem

from components.common.filesystems import filesystem, is_object_store, naming_errors

MANIFEST_NAME = "manifest.json"
_PARTIAL = ".partial"
# By what listings tell a file from another one in its place, each filesystem by its own.
_STATE_KEYS = ("ETag", "etag", "generation", "md5Hash", "size", "mtime", "ino", "created", "LastModified")
# A remote file up to this size is fetched in one request rather than in pieces.
WHOLE_BYTES = 64 << 20


def join_uri(base: str, *parts: str) -> str:
    """Append path parts to a URI or local path."""
    return posixpath.join(base.rstrip("/"), *parts)


def exists(uri: str) -> bool:
    """Whether a file or directory is there."""
    fs, path = filesystem(uri)
    with naming_errors(uri, "read"):
        return bool(fs.exists(path))


def is_file(uri: str) -> bool:
    """Whether a file, and no directory, is there."""
    fs, path = filesystem(uri)
    return bool(fs.isfile(path))


def finished_names(uri: str) -> list[str]:
    """Sorted names of the directories directly under a directory that hold a manifest."""
    fs, path = filesystem(uri.rstrip("/"))
    with naming_errors(uri, "listed"):
        if is_object_store(fs):
            depth = path.count("/") + 2
            found = (name for name in fs.find(path) if name.count("/") == depth)
            manifests = [name for name in found if posixpath.basename(name) == MANIFEST_NAME]
        else:
            manifests = fs.glob(f"{glob.escape(path)}/*/{MANIFEST_NAME}")
    names = (posixpath.basename(posixpath.dirname(name)) for name in manifests)
    return sorted(name for name in names if not name.endswith(_PARTIAL))


def list_names(uri: str) -> list[str]:
    """Sorted names directly under a directory; empty when it is absent; unfinished ones left out."""
    return sorted(list_sizes(uri))


def list_sizes(uri: str) -> dict[str, int]:
    """Likewise, with the size of each file in bytes, and 0 for directories."""
    fs, path = filesystem(uri.rstrip("/"))
    try:
        with naming_errors(uri, "listed"):
            entries = fs.ls(path, detail=True)
    except (FileNotFoundError, NotADirectoryError):
        return {}
    sizes = {posixpath.basename(entry["name"].rstrip("/")): entry["size"] or 0 for entry in entries}
    # What is no directory is listed as itself.
    is_itself = [entry["name"].rstrip("/") for entry in entries] == [path]
    return {} if is_itself else {name: size for name, size in sizes.items() if name and not name.endswith(_PARTIAL)}


def list_tree(uri: str) -> list[str]:
    """Sorted paths of all files below a directory, relative to it; unfinished ones left out."""
    fs, path = filesystem(uri.rstrip("/"))
    with naming_errors(uri, "listed"):
        names = [posixpath.relpath(name, path) for name in fs.find(path)]
    return sorted(name for name in names if _PARTIAL not in name)


def manifest_states(uri: str) -> dict[str, str]:
    """What changes when a manifest below a directory is written anew, by the address of its directory."""
    fs, path = filesystem(uri.rstrip("/"))
    with naming_errors(uri, "listed"):
        found = fs.find(path, detail=True)
    states = {}
    for name, entry in found.items():
        folder, _, file = name.rpartition("/")
        if file == MANIFEST_NAME and not folder.endswith(_PARTIAL):
            states[join_uri(uri, posixpath.relpath(folder, path))] = str([entry.get(key) for key in _STATE_KEYS])
    return states


def file_state(uri: str) -> str:
    """What changes when a file is written anew: of its size, time, place or tag what the filesystem knows; or empty."""
    fs, path = filesystem(uri)
    try:
        with naming_errors(uri, "read"):
            return str(fs.checksum(path))
    except FileNotFoundError:
        return ""


def read_bytes(uri: str) -> bytes:
    """The whole content of a file, in one request."""
    fs, path = filesystem(uri)
    # s3fs would ask for the size first, to read parts at once.
    options = {"max_concurrency": 1} if "s3" in fs.protocol else {}
    with naming_errors(uri, "read"):
        return bytes(fs.cat_file(path, **options))


def find_bytes(uri: str) -> bytes | None:
    """Likewise; None if there is no such file."""
    try:
        return read_bytes(uri)
    except (FileNotFoundError, NotADirectoryError):
        # Any other failure to read it must not pass for its absence.
        return None


def measure(uri: str, num_bytes: int | None = None) -> tuple[int, str]:
    """Bytes of a file and their SHA-256, however large it is.

    Args:
        uri: The file.
        num_bytes: How large it should be, if that is known: a small one is asked for in one request.
    """
    fs, path = filesystem(uri)
    if num_bytes is not None and is_object_store(fs) and num_bytes <= WHOLE_BYTES:
        content = read_bytes(uri)
        return len(content), hashlib.sha256(content).hexdigest()
    with naming_errors(uri, "read"), fs.open(path, "rb") as stream:
        digest = hashlib.file_digest(stream, "sha256").hexdigest()
        return stream.seek(0, os.SEEK_END), digest


def num_bytes(uri: str) -> int:
    """Bytes of a file, or of all files in a directory."""
    fs, path = filesystem(uri)
    return int(fs.du(path))


def map_bytes(uri: str) -> np.ndarray:
    """The content of a file, uint8, shape (size,); mapped into memory where the file is local."""
    fs, path = filesystem(uri)
    if isinstance(fs, LocalFileSystem) and fs.size(path):
        return np.memmap(path, dtype=np.uint8, mode="r")
    with naming_errors(uri, "read"):
        return np.frombuffer(fs.cat_file(path), dtype=np.uint8)


def write_bytes(uri: str, content: bytes) -> None:
    """Write a file whole: in one piece on object stores, elsewhere under a temporary name that is checked and moved."""
    fs, path = filesystem(uri)
    with naming_errors(uri, "written"):
        if is_object_store(fs):
            fs.pipe_file(path, content)
            return
        fs.makedirs(posixpath.dirname(path), exist_ok=True)
        staged = _staged_name(path)
        fs.pipe_file(staged, content)
        if fs.size(staged) != len(content):
            raise OSError(errno.EIO, f"{fs.size(staged)} of {len(content)} bytes were written")
        fs.mv(staged, path)


def create_bytes(uri: str, content: bytes) -> bool:
    """Write a file unless one is there, of any number of writers at once just one; returns whether this one did."""
    fs, path = filesystem(uri)
    with naming_errors(uri, "written"):
        try:
            if isinstance(fs, LocalFileSystem):
                staged = _staged_name(path)
                write_bytes(staged, content)
                try:
                    os.link(staged, path)
                finally:
                    os.remove(staged)
            else:
                fs.pipe_file(path, content, mode="create")
        except FileExistsError:
            # A first attempt may have arrived though its answer was lost.
            return find_bytes(uri) == content
    return True


def remove(uri: str) -> None:
    """Delete a file or a directory with all that it holds, if it is there; a manifest goes first."""
    fs, path = filesystem(uri)
    manifest = posixpath.join(path, MANIFEST_NAME)
    with naming_errors(uri, "deleted"):
        if is_object_store(fs):
            files = fs.find(path)
            for batch in ([name for name in files if name == manifest], [name for name in files if name != manifest]):
                if batch:
                    fs.rm(batch)
            return
        if fs.exists(manifest):
            fs.rm(manifest)
        if fs.exists(path):
            fs.rm(path, recursive=True)


@contextmanager
def new_directory(uri: str) -> Iterator[str]:
    """A directory to fill, which is `uri` when the block ends without an error; the block writes `MANIFEST_NAME` last.

    What was there, and what an earlier, killed attempt left behind, is deleted first. On filesystems that rename, the
    block fills another directory; should the earlier attempt still be alive there, it fails instead of mixing its files
    with these.
    """
    fs, path = filesystem(uri.rstrip("/"))
    if is_object_store(fs):
        remove(uri)
        yield uri
        return
    for name in fs.glob(f"{glob.escape(path)}.*{_PARTIAL}"):
        fs.rm(name, recursive=True)
    staged = _staged_name(uri.rstrip("/"))
    _, staged_path = filesystem(staged)
    fs.makedirs(staged_path, exist_ok=True)
    yield staged
    assert fs.exists(posixpath.join(staged_path, MANIFEST_NAME)), f"{uri}: filled without a manifest"
    remove(uri)
    fs.mv(staged_path, path, recursive=True)


def _staged_name(path: str) -> str:
    return f"{path}.{uuid.uuid4().hex[:8]}{_PARTIAL}"


def remove_unfinished(uri: str) -> None:
    """Delete what killed writers left directly under a directory."""
    fs, path = filesystem(uri.rstrip("/"))
    if not is_object_store(fs):
        for name in fs.glob(f"{glob.escape(path)}/*{_PARTIAL}"):
            fs.rm(name, recursive=True)


@contextmanager
def writing(uri: str) -> Iterator[Any]:
    """A binary stream to a file in its place, of which nothing reads before a manifest names it."""
    fs, path = filesystem(uri)
    with naming_errors(uri, "written"):
        if not is_object_store(fs):
            fs.makedirs(posixpath.dirname(path), exist_ok=True)
        with fs.open(path, "wb") as stream:
            yield stream


def upload(path: Path, uri: str) -> None:
    """Copy a local file to a place where nothing reads before a manifest names it."""
    with path.open("rb") as local, writing(uri) as stream:
        shutil.copyfileobj(local, stream)


def download(uri: str, path: Path) -> None:
    """Copy a file to a local path, in pieces."""
    fs, remote = filesystem(uri)
    with naming_errors(uri, "read"):
        fs.get_file(remote, str(path))


def copy(source_uri: str, target_uri: str) -> None:
    """Copy a file within one filesystem."""
    fs, source = filesystem(source_uri)
    with naming_errors(target_uri, "written"):
        fs.copy(source, filesystem(target_uri)[1])
