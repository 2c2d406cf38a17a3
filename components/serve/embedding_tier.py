"""The embedding tier: tables of the versions that a deployment holds, and online features that fit them.

Rows leave as they lie in the file, and the ranker's graph decodes them: so a look-up is one gather of NumPy, the tier
needs no torch, and a row of 32 numbers is 20 bytes on the wire.
"""

from __future__ import annotations

import threading
import time
from pathlib import Path

import numpy as np

from components.common.deployments import known_deployment, open_deployment
from components.common.errors import InputError
from components.common.layout import Store
from components.serve.config import EmbeddingTierConfig
from components.serve.loading import UnloadedVersions, load_named
from components.serve.observability import LOADED, log_event
from components.serve.online_look_ups import USER, OnlineLookUps, tensors_of_known
from components.serve.protocol import CATEGORICAL, SEQUENCE
from components.serve.table_source import count_unknown
from components.serve.tier_credentials import TierCredentials
from components.version.local_copies import keep_copies
from components.version.packed_tables import PackedTables
from components.version.version import Version

TIER = "embedding"


class Loading(RuntimeError):
    """Versions are being loaded."""


class TooLarge(InputError):
    """A request beyond a limit of this server, which its metadata states."""


class EmbeddingTier:
    """The tables of the versions that a deployment holds.

    Attributes:
        config: Its settings.
        credentials: The files that they name.
        online: Features that requests of these versions are completed with.
        ready: Whether versions are loaded, its server is open, and it was not told to stop.
    """

    def __init__(self, config: EmbeddingTierConfig) -> None:
        """Start without any version."""
        self.config, self.credentials = config, TierCredentials(config)
        self._store = Store(config.store_uri)
        self._tables: dict[str, PackedTables] = {}
        self.online = OnlineLookUps(self._store, config.online_features)
        self._unloaded = UnloadedVersions(TIER)
        self._following = threading.Lock()
        self.ready = False

    @property
    def versions(self) -> list[str]:
        """Digests of the versions that are ready, sorted."""
        return sorted(self._tables)

    def load(self) -> None:
        """Load what the deployment's record names, before the first request.

        Raises:
            InputError: If a version that users are routed to is absent or damaged.
        """
        deployment = open_deployment(self._store, self.config.deployment)
        self._keep_copies(deployment.tables)
        load_named(deployment, deployment.tables, self._load)

    def follow(self) -> None:
        """Do what the deployment's record says: load the versions that it names, and then let the others go.

        Raises:
            InputError: If a version is absent or damaged; those that were loaded stay.
            Loading: If another call is at it; threads are for look-ups.
        """
        if not self._following.acquire(blocking=False):
            raise Loading("another load is under way")
        try:
            deployment = known_deployment(self._store, self.config.deployment)
            wanted = deployment.tables
            for digest in [digest for digest in wanted if digest not in self._tables]:
                try:
                    self._load(digest)
                except (InputError, OSError):
                    # No ranker asks for one that goes.
                    if digest in deployment.rankers:
                        raise
                    wanted = tuple(name for name in wanted if name != digest)
            # Requests that are being answered hold on to the tables that they began with.
            gone = [digest for digest in self._tables if digest not in wanted]
            self._tables = {digest: self._tables[digest] for digest in wanted}
            self.online.keep(wanted)
            for digest in gone:
                self._unloaded.add(digest, self._tables)
                log_event("tables unloaded", version=digest)
            self._keep_copies(wanted)
        finally:
            self._following.release()

    def _keep_copies(self, digests: tuple[str, ...]) -> None:
        if self.config.copies_folder:
            keep_copies(Path(self.config.copies_folder), digests)

    def _load(self, digest: str) -> None:
        started = time.monotonic()
        tables = Version.published(self._store, digest).tables(self.config.copies_folder)
        tables.warm()
        self.online.hold(digest, tables.features)
        self._tables = {**self._tables, digest: tables}
        LOADED.labels(TIER, digest).set(1)
        log_event("tables loaded", version=digest, seconds=round(time.monotonic() - started, 3))

    def find(self, digest: str) -> PackedTables:
        """The tables of a version.

        Raises:
            KeyError: If it is not loaded; never another version's.
        """
        return self._tables[digest]

    def look_up(self, version: str, tables: PackedTables, arrays: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Packed rows of a request's ids.

        Args:
            version: Its digest.
            tables: Of the version.
            arrays: `categorical`, int64, shape (n, C), and `sequence`, int64, shape (u, L, S), or one of them.

        Raises:
            InputError: If a tensor is unknown, of another type or shape, or an id is out of range.
            TooLarge: If there are too many ids.
        """
        unknown = sorted(set(arrays) - {CATEGORICAL, SEQUENCE})
        if unknown or not arrays:
            raise InputError(f"inputs {unknown or 'none'}: the tables take {[CATEGORICAL, SEQUENCE]}")
        num_ids = sum(ids.size for ids in arrays.values())
        if num_ids > self.config.max_ids:
            raise TooLarge(f"{num_ids} ids in one request, at most {self.config.max_ids} are allowed; send fewer rows")
        features = tables.features
        of = {CATEGORICAL: (features.served_columns, 2), SEQUENCE: (features.sequence_tables, 3)}
        rows = {}
        for name, ids in arrays.items():
            columns, dimensions = of[name]
            if ids.dtype != np.int64 or ids.ndim != dimensions:
                raise InputError(
                    f"input {name!r} is {ids.dtype} of shape {list(ids.shape)}; it must be INT64 with {dimensions} "
                    "dimensions"
                )
            rows[f"{name}_rows"], num_unknown = tables.look_up_and_count(columns, ids)
            if name == CATEGORICAL:
                count_unknown(version, num_unknown)
        return rows

    def look_up_online(
        self, version: str, tables: PackedTables, arrays: dict[str, np.ndarray]
    ) -> dict[str, np.ndarray]:
        """What is known online for a request; nothing if no online features fit the version.

        Args:
            version: Its digest.
            tables: Of the version.
            arrays: `user_hash`, shape (1,), and entities by name, shape (n,): hashes, int64.

        Raises:
            InputError: If a tensor is missing, unknown, or of another type or shape.
            TooLarge: If there are too many entities.
        """
        taken = {USER, *tables.features.engagement.entities}
        for name, values in arrays.items():
            if name not in taken or values.dtype != np.int64 or values.ndim != 1:
                raise InputError(
                    f"input {name!r} is {values.dtype} of shape {list(values.shape)}; online features take INT64 with "
                    f"one dimension of {sorted(taken)}"
                )
        if USER not in arrays or len(arrays[USER]) != 1:
            raise InputError(f"input {USER!r} must have one value: a request is of one user")
        num_hashes = sum(map(len, arrays.values()))
        if num_hashes > self.config.max_ids:
            raise TooLarge(f"{num_hashes} hashes in one request, at most {self.config.max_ids} are allowed")
        hashes = {name: values.view(np.uint64) for name, values in arrays.items()}
        known = self.online.look_up(version, int(hashes.pop(USER)[0]), hashes)
        return {} if known is None else tensors_of_known(known)
