"""A published version, checked before anything of it is used."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from components.common import storage
from components.common.config import Config
from components.common.errors import InputError
from components.common.features import FeatureConfig
from components.common.layout import VERSION_KIND, Store
from components.common.manifests import Manifest, read_manifest, verify_files
from components.common.packed_tables import PackedTable, PackedTables
from components.common.servable import RANKER_FILE, TABLES_FILE, version_digest
from components.serve.request import RequestContract


class ServedDetails(Config):
    """What of a version's manifest a server needs.

    Attributes:
        features: Its feature list.
        objectives: Of the ranker's outputs, in order.
        tables: What lies where in the file of tables.
        identifiers: By log and column, whether identifiers are integers or strings.
    """

    features: FeatureConfig
    objectives: tuple[str, ...]
    tables: tuple[PackedTable, ...]
    identifiers: dict[Literal["impressions", "actions"], dict[str, Literal["int64", "string"]]]


@dataclass(frozen=True)
class Version:
    """One version's directory.

    Attributes:
        uri: Where it lies.
        manifest: Its description.
        details: What of it a server needs.
    """

    uri: str
    manifest: Manifest
    details: ServedDetails

    @classmethod
    def open(cls, uri: str) -> Version:
        """Read a directory's manifest; its files are checked when they are asked for.

        Raises:
            InputError: If it is absent or not readable.
        """
        manifest = read_manifest(uri, VERSION_KIND)
        needed = {name: manifest.details[name] for name in ServedDetails.model_fields if name in manifest.details}
        details = ServedDetails.parse(needed, f"{storage.join_uri(uri, storage.MANIFEST_NAME)}: details")
        return cls(uri, manifest, details)

    @classmethod
    def published(cls, store: Store, digest: str) -> Version:
        """A version of the registry by its digest.

        Raises:
            InputError: If there is none, or it holds another version.
        """
        version = cls.open(store.version(digest))
        if version.digest != digest:
            raise InputError(f"{version.uri}: holds version {version.digest[:12]}; restore the registry")
        return version

    @property
    def digest(self) -> str:
        """What names it."""
        return version_digest(self.manifest)

    def tables(self) -> PackedTables:
        """Its tables, mapped into memory where the store is local.

        Raises:
            InputError: If the file is absent or damaged.
        """
        verify_files(self.uri, self.manifest, (TABLES_FILE,))
        content = storage.map_bytes(storage.join_uri(self.uri, TABLES_FILE))
        return PackedTables(content, list(self.details.tables), self.details.features)

    def onnx(self) -> bytes:
        """Its ranker.

        Raises:
            InputError: If the file is absent or damaged.
        """
        verify_files(self.uri, self.manifest, (RANKER_FILE,))
        return storage.read_bytes(storage.join_uri(self.uri, RANKER_FILE))

    def contract(self) -> RequestContract:
        """What requests to it carry."""
        identifiers = {str(table): dict(kinds) for table, kinds in self.details.identifiers.items()}
        return RequestContract(self.details.features, identifiers)
