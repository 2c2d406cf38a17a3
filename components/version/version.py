"""A published version, checked before anything of it is used."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from components.common import storage
from components.common.digests import digest_bytes
from components.common.errors import InputError
from components.common.filesystems import is_local
from components.common.layout import Store
from components.common.manifests import manifest_path, mapped_bytes, read_manifest, verified_bytes
from components.features.learned_rows import RowIndex
from components.version.local_copies import fetch_verified
from components.version.manifest import IDS_FILE, RANKER_FILE, TABLES_FILE, VersionManifest
from components.version.packed_ids import indexes_in
from components.version.packed_tables import PackedTables
from components.version.request import RequestContract

_DIGEST = re.compile("[0-9a-f]{64}")


@dataclass(frozen=True)
class Version:
    """One version's directory.

    Attributes:
        uri: Where it lies.
        manifest: Its description.
        digest: What names it: that of the manifest's bytes, whatever release wrote them.
    """

    uri: str
    manifest: VersionManifest
    digest: str

    @classmethod
    def open(cls, uri: str) -> Version:
        """Read a directory's manifest; its files are checked when they are asked for.

        Raises:
            InputError: If it is absent or not readable.
        """
        manifest, path = read_manifest(uri, VersionManifest), manifest_path(uri)
        return cls(uri, manifest, digest_bytes(storage.read_bytes(path)))

    @classmethod
    def published(cls, store: Store, digest: str) -> Version:
        """A version of the registry by its digest.

        Raises:
            InputError: If it is no digest, there is none, or it holds another version.
        """
        # It becomes a path: nothing but a digest stays within the registry.
        if not _DIGEST.fullmatch(digest):
            raise InputError(
                f"version {digest[:80]!r} is no digest (64 hexadecimal digits); `afterclick show` has them"
            )
        version = cls.open(store.version(digest))
        if version.digest != digest:
            raise InputError(f"{version.uri}: holds version {version.digest[:12]}; restore the registry")
        return version

    def tables(self, copies: str = "") -> PackedTables:
        """Its tables, mapped into memory.

        Args:
            copies: A folder for copies of the files of a remote store, one below it for each version; without it they
                are read into memory.

        Raises:
            InputError: If a file is absent or damaged.
            OSError: If the disk does not take a copy.
        """
        content, indexes = self._mapped(TABLES_FILE, copies), self.indexes(copies)
        return PackedTables(content, list(self.manifest.tables), self.manifest.features, indexes)

    def indexes(self, copies: str = "") -> dict[str, RowIndex]:
        """Which row each id has, by table where training has decided it, likewise.

        Raises:
            InputError: If the file is absent or damaged.
        """
        if not self.manifest.features.indexed:
            return {}
        return indexes_in(self._mapped(IDS_FILE, copies), list(self.manifest.ids), self.manifest.features)

    def _mapped(self, name: str, copies: str) -> np.ndarray:
        if copies and not is_local(self.uri):
            return storage.map_bytes(str(fetch_verified(self.uri, self.manifest, name, Path(copies, self.digest))))
        return mapped_bytes(self.uri, self.manifest, name)

    def onnx(self) -> bytes:
        """Its ranker.

        Raises:
            InputError: If the file is absent or damaged.
        """
        return verified_bytes(self.uri, self.manifest, RANKER_FILE)

    def contract(self) -> RequestContract:
        """The contract of requests to it."""
        identifiers = {str(table): dict(kinds) for table, kinds in self.manifest.identifiers.items()}
        return RequestContract(self.manifest.features, identifiers)
