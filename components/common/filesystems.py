"""Local folders and object stores behind one interface, fsspec's, and what they say when they refuse.

Throttling, lost connections and a service's own failures are tried again, with growing pauses, by each store's client.
Nothing is listed from memory: another process may have written since.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import fsspec
from fsspec.implementations.local import LocalFileSystem

from components.common.errors import InputError, TransientError

# A file appears there when all of it has arrived; a rename would be a copy.
_OBJECT_STORES = frozenset(("s3", "s3a", "gs", "gcs", "abfs", "abfss", "az", "adl", "oss", "memory"))
_ATTEMPTS = 12
# Packages whose errors are no OSError, though they are about reaching a store.
_CLIENTS = ("botocore", "aiobotocore", "s3fs", "gcsfs", "google", "aiohttp", "azure")
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def filesystem(uri: str) -> tuple[Any, str]:
    """The fsspec filesystem of a URI or local path, and the path on it.

    Raises:
        InputError: If the filesystem's package is not installed, or there is no such filesystem.
    """
    if uri and ":" not in uri and uri[0] not in ".~":
        # As fsspec does it, at a fraction of the time.
        return LocalFileSystem(), os.path.join(os.getcwd(), uri).rstrip("/") or "/"
    protocol = uri.partition("://")[0] if "://" in uri else "file"
    try:
        return fsspec.url_to_fs(uri, **_options(protocol))
    except (ImportError, ValueError) as error:
        raise InputError(f"{uri}: {error}; install the package of this filesystem, or correct the address") from error


def _options(protocol: str) -> dict[str, Any]:
    if protocol not in _OBJECT_STORES:
        return {}
    options: dict[str, Any] = {"use_listings_cache": False}
    if protocol in ("s3", "s3a") and "AWS_MAX_ATTEMPTS" not in os.environ:
        options["config_kwargs"] = {"retries": {"mode": "standard", "total_max_attempts": _ATTEMPTS}}
    return options


def is_object_store(fs: Any) -> bool:
    """Whether files appear whole, and cannot be renamed."""
    protocols = (fs.protocol,) if isinstance(fs.protocol, str) else fs.protocol
    return not _OBJECT_STORES.isdisjoint(protocols)


def is_local(uri: str) -> bool:
    """Whether a URI is a path on this machine."""
    return isinstance(filesystem(uri)[0], LocalFileSystem)


@contextmanager
def naming_errors(uri: str, doing: str) -> Iterator[None]:
    """Name the file, what was done with it and how to go on, in what a store or the system says.

    Args:
        uri: The file or folder.
        doing: What is done with it: `read`, `written`, `listed` or `deleted`.

    Raises:
        FileNotFoundError: As it comes, if a file is absent in a bucket that is there.
        InputError: If the bucket is not there, or the store does not let us in.
        TransientError: If a store does not do it for another reason.
        OSError: If this machine does not.
    """
    try:
        yield
    except InputError:
        raise
    except Exception as error:
        is_store = type(error).__module__.partition(".")[0] in _CLIENTS
        if not isinstance(error, OSError) and not is_store:
            raise
        reason = getattr(error, "strerror", "") or " ".join(str(error).split()) or type(error).__name__
        is_remote = "://" in uri
        if is_remote and "specified bucket" in reason:
            raise InputError(f"{uri}: there is no such bucket; make it, or correct the address") from error
        is_absent = isinstance(error, FileNotFoundError | NotADirectoryError) and doing != "written"
        if is_absent or (doing == "read" and not is_remote):
            raise
        is_denied = isinstance(error, PermissionError) or "credential" in f"{type(error).__name__} {reason}".lower()
        if is_remote and is_denied:
            raise InputError(
                f"{uri}: cannot be {doing} ({reason}); give this process credentials that may: a key in its "
                "environment, or a service account with a role on the bucket"
            ) from error
        remedy = "make room" if getattr(error, "errno", None) in _FULL else "see to it"
        kind = TransientError if is_remote else OSError
        raise kind(f"{uri}: cannot be {doing} ({reason}); {remedy} and give the same command again") from error
