"""Reading and writing on any fsspec filesystem, so that nothing half-written is ever read.

A file appears whole: object stores put it in one piece, elsewhere it is written under a temporary name and renamed. A
directory is complete when it holds `MANIFEST_NAME`, which arrives last: on object stores it is filled in its place,
elsewhere beside it, and renamed.
"""

from __future__ import annotations

import errno
import glob
import hashlib
import posixpath
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from fsspec.implementations.local import LocalFileSystem

from components.common.errors import InputError

MANIFEST_NAME = "manifest.json"
_PARTIAL = ".partial"
# A file appears there when all of it has arrived; a rename would be a copy.
_OBJECT_STORES = frozenset(("s3", "s3a", "gs", "gcs", "abfs", "abfss", "az", "adl", "oss", "memory"))


def filesystem(uri: str) -> tuple[Any, str]:
    """The fsspec filesystem of a URI or local path, and the path on it.

    Raises:
        InputError: If the filesystem's package is not installed, or there is no such filesystem.
    """
    try:
        return fsspec.url_to_fs(uri)
    except (ImportError, ValueError) as error:
        raise InputError(f"{uri}: {error}; for s3:// install s3fs, for gs:// gcsfs") from error


def _is_object_store(fs: Any) -> bool:
    protocols = (fs.protocol,) if isinstance(fs.protocol, str) else fs.protocol
    return not _OBJECT_STORES.isdisjoint(protocols)


def join_uri(base: str, *parts: str) -> str:
    """Append path parts to a URI or local path."""
    return posixpath.join(base.rstrip("/"), *parts)


def exists(uri: str) -> bool:
    """Whether a file or directory is there."""
    fs, path = filesystem(uri)
    fs.invalidate_cache(posixpath.dirname(path))
    return bool(fs.exists(path))


def is_file(uri: str) -> bool:
    """Whether a file, and no directory, is there."""
    fs, path = filesystem(uri)
    fs.invalidate_cache(posixpath.dirname(path))
    return bool(fs.isfile(path))


def finished_names(uri: str) -> list[str]:
    """Sorted names of the directories directly under a directory that hold a manifest."""
    fs, path = filesystem(uri.rstrip("/"))
    fs.invalidate_cache(path)
    manifests = fs.glob(f"{glob.escape(path)}/*/{MANIFEST_NAME}")
    names = (posixpath.basename(posixpath.dirname(name)) for name in manifests)
    return sorted(name for name in names if not name.endswith(_PARTIAL))


def list_names(uri: str) -> list[str]:
    """Sorted names directly under a directory; empty when it is absent; unfinished ones left out."""
    fs, path = filesystem(uri)
    fs.invalidate_cache(path)
    if not fs.isdir(path):
        return []
    names = (posixpath.basename(entry.rstrip("/")) for entry in fs.ls(path, detail=False))
    return sorted(name for name in names if name and not name.endswith(_PARTIAL))


def file_state(uri: str) -> str:
    """What changes when a file is written anew: of its size, time, place or tag what the filesystem knows; or empty."""
    fs, path = filesystem(uri)
    fs.invalidate_cache(posixpath.dirname(path))
    try:
        return str(fs.checksum(path))
    except FileNotFoundError:
        return ""


def read_bytes(uri: str) -> bytes:
    """The whole content of a file."""
    fs, path = filesystem(uri)
    return bytes(fs.cat_file(path))


def measure(uri: str) -> tuple[int, str]:
    """Bytes of a file and their SHA-256, however large it is."""
    fs, path = filesystem(uri)
    with fs.open(path, "rb") as stream:
        return fs.size(path), hashlib.file_digest(stream, "sha256").hexdigest()


def num_bytes(uri: str) -> int:
    """Bytes of a file, or of all files in a directory."""
    fs, path = filesystem(uri)
    return int(fs.du(path))


def map_bytes(uri: str) -> np.ndarray:
    """The content of a file, uint8, shape (size,); mapped into memory where the file is local."""
    fs, path = filesystem(uri)
    if isinstance(fs, LocalFileSystem) and fs.size(path):
        return np.memmap(path, dtype=np.uint8, mode="r")
    return np.frombuffer(read_bytes(uri), dtype=np.uint8)


@contextmanager
def _naming(uri: str) -> Iterator[None]:
    """Name the file, and how to go on, in what the system says when it cannot be written."""
    try:
        yield
    except OSError as error:
        reason = error.strerror or " ".join(str(error).split()) or type(error).__name__
        is_full = error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
        remedy = "make room" if is_full else "see to it"
        raise OSError(f"{uri}: cannot be written ({reason}); {remedy} and give the same command again") from error


def write_bytes(uri: str, content: bytes) -> None:
    """Write a file whole: in one piece on object stores, elsewhere under a temporary name that is checked and moved."""
    fs, path = filesystem(uri)
    with _naming(uri):
        if _is_object_store(fs):
            fs.pipe_file(path, content)
            return
        fs.makedirs(posixpath.dirname(path), exist_ok=True)
        staged = _staged_name(path)
        fs.pipe_file(staged, content)
        if fs.size(staged) != len(content):
            raise OSError(errno.EIO, f"{fs.size(staged)} of {len(content)} bytes were written")
        fs.mv(staged, path)


def remove(uri: str) -> None:
    """Delete a file or a directory with all that it holds, if it is there; a manifest goes first."""
    fs, path = filesystem(uri)
    manifest = posixpath.join(path, MANIFEST_NAME)
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
    if _is_object_store(fs):
        remove(uri)
        yield uri
    else:
        for name in fs.glob(f"{glob.escape(path)}.*{_PARTIAL}"):
            fs.rm(name, recursive=True)
        staged = _staged_name(uri.rstrip("/"))
        _, staged_path = filesystem(staged)
        fs.makedirs(staged_path, exist_ok=True)
        yield staged
        remove(uri)
        fs.mv(staged_path, path, recursive=True)
    assert fs.exists(posixpath.join(path, MANIFEST_NAME)), f"{uri}: filled without a manifest"


def _staged_name(path: str) -> str:
    return f"{path}.{uuid.uuid4().hex[:8]}{_PARTIAL}"


def remove_unfinished(uri: str) -> None:
    """Delete what killed writers left directly under a directory."""
    fs, path = filesystem(uri.rstrip("/"))
    for name in fs.glob(f"{glob.escape(path)}/*{_PARTIAL}"):
        fs.rm(name, recursive=True)


@contextmanager
def writing(uri: str) -> Iterator[Any]:
    """A binary stream to a file in its place, of which nothing reads before a manifest names it."""
    fs, path = filesystem(uri)
    with _naming(uri):
        fs.makedirs(posixpath.dirname(path), exist_ok=True)
        with fs.open(path, "wb") as stream:
            yield stream


def write_parquet(uri: str, table: pa.Table, rows_per_group: int = 65_536) -> None:
    """Write one Parquet file; the same table gives the same bytes.

    Training puts row groups in random order, so they must be small beside what it holds in memory.
    """
    with writing(uri) as stream:
        pq.write_table(table, stream, compression="zstd", row_group_size=rows_per_group)


def upload(path: Path, uri: str) -> None:
    """Copy a local file to a place where nothing reads before a manifest names it."""
    with path.open("rb") as local, writing(uri) as stream:
        shutil.copyfileobj(local, stream)


def copy(source_uri: str, target_uri: str) -> None:
    """Copy a file within one filesystem."""
    fs, source = filesystem(source_uri)
    fs.copy(source, filesystem(target_uri)[1])


def read_parquet(uri: str, columns: list[str] | None = None) -> pa.Table:
    """Read one Parquet file.

    Raises:
        InputError: If the file is absent, truncated or no Parquet file.
    """
    with _open_parquet(uri) as file:
        return file.read(columns=columns)


def parquet_columns(uri: str) -> list[str]:
    """The columns of a Parquet file.

    Raises:
        InputError: If the file is absent, truncated or no Parquet file.
    """
    with _open_parquet(uri) as file:
        return list(file.schema_arrow.names)


def parquet_row_groups(uri: str) -> list[int]:
    """Rows of every row group of a Parquet file.

    Raises:
        InputError: If the file is absent, truncated or no Parquet file.
    """
    with _open_parquet(uri) as file:
        return [file.metadata.row_group(number).num_rows for number in range(file.num_row_groups)]


def read_parquet_row_groups(uri: str, numbers: list[int]) -> pa.Table:
    """Read some row groups of a Parquet file.

    Raises:
        InputError: If the file is absent, truncated or no Parquet file.
    """
    with _open_parquet(uri) as file:
        return file.read_row_groups(numbers)


def read_parquet_batches(uri: str, num_rows: int, columns: list[str] | None = None) -> Iterator[pa.Table]:
    """Read one Parquet file in pieces of at most `num_rows` rows; a file without rows gives nothing.

    Raises:
        InputError: If the file is absent, truncated or no Parquet file.
    """
    with _open_parquet(uri) as file:
        for batch in file.iter_batches(batch_size=num_rows, columns=columns):
            yield pa.table(batch)


@contextmanager
def _open_parquet(uri: str) -> Iterator[pq.ParquetFile]:
    fs, path = filesystem(uri)
    try:
        with fs.open(path, "rb") as stream:
            yield pq.ParquetFile(stream)
    except FileNotFoundError as error:
        raise InputError(f"{uri}: no such file") from error
    except (pa.ArrowInvalid, OSError) as error:
        reason = str(error).splitlines()[0]
        raise InputError(f"{uri}: not a readable Parquet file ({reason}); deliver the file again") from error
