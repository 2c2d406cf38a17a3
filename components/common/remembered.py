"""What several steps in one process want to know of a remote store, asked for once.

While `remembering` lasts, only this process writes what is kept. Manifests are kept in the store, too, each with the
state that a listing gives its file: a day's manifest is read on the day when it changes, and not once more a night.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

from components.common import storage
from components.common.filesystems import is_local

_MAX_FILES, _MAX_FILE_BYTES = 500, 1 << 20


@dataclass
class _Memory:
    """By address: manifests' contents, and small files' with their digests."""

    manifests: dict[str, bytes] = field(default_factory=dict)
    files: dict[tuple[str, str], bytes] = field(default_factory=dict)


_memory: _Memory | None = None


@contextmanager
def remembering(folders: Sequence[str], index_uri: str) -> Iterator[None]:
    """Keep what is asked for; before and after, go by what the store keeps of manifests below some folders.

    Args:
        folders: Whose manifests.
        index_uri: The file that they are kept in.
    """
    global _memory
    if is_local(index_uri):
        yield
        return
    _memory = _Memory(_kept(folders, index_uri))
    try:
        yield
        _keep(folders, index_uri, _memory.manifests)
    finally:
        _memory = None


def recall_manifest(uri: str) -> bytes | None:
    """The content of a manifest, if it is known."""
    return _memory.manifests.get(uri) if _memory is not None else None


def note_manifest(uri: str, content: bytes | None) -> None:
    """Keep the content of a manifest that was read; None: it is about to change."""
    if _memory is not None:
        _memory.manifests.pop(uri, None)
        if content is not None:
            _memory.manifests[uri] = content


def recall_file(uri: str, sha256: str) -> bytes | None:
    """The content of a small file, if it is known."""
    return _memory.files.get((uri, sha256)) if _memory is not None else None


def note_file(uri: str, sha256: str, content: bytes) -> None:
    """Keep the content of a file, if it is small, and few are kept yet."""
    if _memory is not None and len(content) <= _MAX_FILE_BYTES and len(_memory.files) < _MAX_FILES:
        _memory.files[uri, sha256] = content


def _states(folders: Sequence[str]) -> dict[str, str]:
    states = (storage.manifest_states(folder) for folder in folders)
    return {storage.join_uri(uri, storage.MANIFEST_NAME): state for part in states for uri, state in part.items()}


def _kept(folders: Sequence[str], index_uri: str) -> dict[str, bytes]:
    """The manifests whose files are as they were."""
    try:
        index: dict[str, list[str]] = json.loads(storage.find_bytes(index_uri) or b"{}")
    except ValueError:
        return {}
    states = _states(folders) if index else {}
    return {uri: content.encode() for uri, (state, content) in index.items() if states.get(uri) == state}


def _keep(folders: Sequence[str], index_uri: str, manifests: dict[str, bytes]) -> None:
    states = _states(folders)
    index = {uri: [states[uri], manifests[uri].decode()] for uri in sorted(manifests) if uri in states}
    storage.write_bytes(index_uri, json.dumps(index).encode())
