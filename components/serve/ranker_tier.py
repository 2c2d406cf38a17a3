"""The ranker tier: from raw features to probabilities, every answer by tables and ranker of one version."""

from __future__ import annotations

import asyncio
import time
import zlib
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import grpc
import numpy as np

from components.common.deployments import known_deployment, open_deployment
from components.common.errors import InputError
from components.common.layout import Store
from components.serve.config import RankerTierConfig
from components.serve.loading import UnloadedVersions, load_named
from components.serve.observability import (
    CANDIDATES,
    LOADED,
    LOOK_UP_SECONDS,
    PREDICTION,
    PREDICTION_SQUARES,
    PROVIDER,
    RANK_SECONDS,
    ROUTED,
    log_event,
)
from components.serve.online_look_ups import OnlineLookUps, count_sources
from components.serve.ranker_version import RankerVersion
from components.serve.shadow import Shadow
from components.serve.table_source import LocalTables, RemoteTables, TableSource
from components.serve.tier_credentials import TierCredentials
from components.version.request import RawRequest
from components.version.version import Version
from components.version.wire_names import Ranking

_TIER = "ranker"
_Found = TypeVar("_Found")


class NotServed(InputError):
    """A version that this tier does not hold."""


class RankerTier:
    """The rankers of the versions that a deployment holds, and which of them answers whom."""

    def __init__(self, config: RankerTierConfig, source: TableSource | None = None) -> None:
        """Start without any version; rows come from a source, or from what the configuration says."""
        self.config, self.credentials = config, TierCredentials(config, config.embedding_ca)
        self._store = Store(config.store_uri)
        self._versions: dict[str, RankerVersion] = {}
        self._routes: dict[str, float] = {}
        self._unloaded = UnloadedVersions(_TIER)
        self._executor = ThreadPoolExecutor(config.threads, thread_name_prefix="rank")
        self._shadow_executor = ThreadPoolExecutor(1, thread_name_prefix="shadow")
        self._loader = ThreadPoolExecutor(1, thread_name_prefix="load")
        self._following = asyncio.Lock()
        self.source = source or self._make_source()
        self.shadow = Shadow(self._score_in_shadow, config.shadow_waiting)

    def _make_source(self) -> TableSource:
        config = self.config
        if config.embedding_address:
            certificates, name = self.credentials.to_embedding_tier, config.embedding_name
            return RemoteTables(config.embedding_address, config.look_up_seconds, certificates, name)
        online = OnlineLookUps(self._store, config.online_features)
        online.keep_fresh(config.online_seconds)
        return LocalTables(lambda digest: Version.published(self._store, digest).tables(), online)

    @property
    def versions(self) -> list[str]:
        """Digests of the versions that are loaded, sorted."""
        return sorted(self._versions)

    @property
    def routes(self) -> dict[str, float]:
        """Shares of the users by version."""
        return dict(self._routes)

    def version(self, digest: str = "") -> RankerVersion:
        """A version that is loaded; without a digest, the one that most users are routed to.

        Raises:
            NotServed: If it is not loaded here.
        """
        return self._held(digest or max(self._routes, key=lambda name: self._routes[name]))

    def load(self) -> None:
        """Load what the deployment's record names, before the first request.

        Raises:
            InputError: If a version that users are routed to is absent or damaged.
        """
        deployment = open_deployment(self._store, self.config.deployment)
        load_named(deployment, deployment.rankers, self._load)
        self._route(deployment.routes)
        self.shadow.follow(deployment)

    async def follow(self) -> None:
        """Do what the deployment's record says: load, route, and let go of what has no requests left.

        Raises:
            InputError: If a version is absent or damaged, or the tables of a routed version are not ready. Then all
                users stay where they were.
            grpc.RpcError: If the embedding tier cannot be asked.
        """
        async with self._following:
            deployment = known_deployment(self._store, self.config.deployment)
            for digest in deployment.rankers:
                if digest not in self._versions:
                    await asyncio.get_running_loop().run_in_executor(self._loader, self._load, digest)
            for digest in deployment.routes:
                if not await self.source.is_ready(digest):
                    raise InputError(f"tables of version {digest[:12]} are not ready; load them before it is routed to")
            self._route(deployment.routes)
            self.shadow.follow(deployment)
            gone = [self._versions[digest] for digest in self._versions if digest not in deployment.rankers]
            self._versions = {digest: self._versions[digest] for digest in deployment.rankers}
            for version in gone:
                drained = await version.drained(self.config.drain_seconds)
                PROVIDER.labels(version.digest, version.provider).set(0)
                self._unloaded.add(version.digest, self._versions)
                log_event("ranker unloaded", version=version.digest, drained=drained)
            if isinstance(self.source, LocalTables):
                self.source.keep(deployment.tables)

    def _load(self, digest: str) -> None:
        started = time.monotonic()
        published, config = Version.published(self._store, digest), self.config
        version = RankerVersion.load(published, config.session_threads, config.require_gpu)
        if isinstance(self.source, LocalTables):
            self.source.load(digest)
        self._versions = {**self._versions, digest: version}
        LOADED.labels(_TIER, digest).set(1)
        PROVIDER.labels(digest, version.provider).set(1)
        seconds = round(time.monotonic() - started, 3)
        log_event("ranker loaded", version=digest, provider=version.provider, seconds=seconds)

    def _route(self, routes: dict[str, float]) -> None:
        for digest in {*self._routes, *routes}:
            ROUTED.labels(digest).set(routes.get(digest, 0.0))
        if routes != self._routes:
            log_event("routed", shares=routes)
        self._routes = routes

    async def is_ready(self) -> bool:
        """Whether every version that may be asked has its ranker and its tables."""
        if not self._routes or not set(self._routes) <= set(self._versions):
            return False
        try:
            return all([await self.source.is_ready(digest) for digest in self._routes])
        except grpc.RpcError:
            return False

    async def rank(self, tensors: Mapping[str, np.ndarray], version: str = "") -> Ranking:
        """Answer a request.

        Args:
            tensors: By name, as `RequestContract` has them.
            version: Its digest; empty for the one that the user is routed to.

        Raises:
            InputError: If a tensor is not what the version's contract says.
            NotServed: If the version is not loaded here.
            grpc.RpcError: If the embedding tier fails.
        """
        return await self.answer(self.choose(version, tensors), tensors)

    async def answer(self, chosen: RankerVersion, tensors: Mapping[str, np.ndarray]) -> Ranking:
        """Answer as `rank` does, by a version that was chosen."""
        with chosen.answering():
            ranking = await self._score(chosen, tensors, self._executor)
        for name, values in ranking.probabilities.items():
            mean = float(values.mean()) if len(values) else 0.0
            PREDICTION.labels(chosen.digest, name).observe(mean)
            PREDICTION_SQUARES.labels(chosen.digest, name).inc(mean**2)
        CANDIDATES.labels(chosen.digest).inc(len(next(iter(ranking.probabilities.values()))))
        return ranking

    async def _score_in_shadow(self, version: str, tensors: Mapping[str, np.ndarray]) -> Ranking:
        """Score a request for nobody, in a thread beside those that answer."""
        async with asyncio.timeout(self.config.request_seconds):
            return await self._score(self.choose(version, tensors), tensors, self._shadow_executor)

    async def _score(
        self, chosen: RankerVersion, tensors: Mapping[str, np.ndarray], executor: ThreadPoolExecutor
    ) -> Ranking:
        loop = asyncio.get_running_loop()
        if self.config.online_features:
            read = await loop.run_in_executor(executor, chosen.contract.read, tensors, self.config.limits)
            request = await self._completed(chosen, read)
            categorical, sequence, lengths = await loop.run_in_executor(executor, chosen.contract.ids, request)
        else:
            request, (categorical, sequence, lengths) = await loop.run_in_executor(
                executor, self._read, chosen, tensors
            )
        # The look-up is on its way while the other features are made.
        looked_up = asyncio.create_task(self._look_up(chosen.digest, categorical, sequence))
        try:
            dense = await loop.run_in_executor(executor, chosen.contract.dense, request)
            rows, positions = await looked_up
        finally:
            looked_up.cancel()
        users = np.zeros(len(rows), dtype=np.int64)

        def run() -> np.ndarray:
            # In the thread, so that waiting for it is not counted.
            with RANK_SECONDS.labels(chosen.digest).time():
                return chosen.run((rows, dense, positions, lengths, users))

        probabilities = await loop.run_in_executor(executor, run)
        return Ranking(chosen.digest, {name: probabilities[:, column] for name, column in chosen.columns.items()})

    def _read(
        self, chosen: RankerVersion, tensors: Mapping[str, np.ndarray]
    ) -> tuple[RawRequest, tuple[np.ndarray, np.ndarray, np.ndarray]]:
        request = chosen.contract.read(tensors, self.config.limits)
        return request, chosen.contract.ids(request)

    async def _completed(self, chosen: RankerVersion, request: RawRequest) -> RawRequest:
        """A request with what is known online of its user and its candidates.

        Raises:
            InputError: If engagement is missing, and there are no online features.
        """
        contract, digest = chosen.contract, chosen.digest
        user, entities = int(request.user.users[0]), contract.entities(request)
        known = await self.source.look_up_online(digest, contract.features, user, entities)
        count_sources(digest, request, known, bool(entities))
        if known is not None:
            request = request.completed(known)
        contract.check_complete(request)
        return request

    async def run(self, work: Callable[[], _Found]) -> _Found:
        """Do work in a thread."""
        return await asyncio.get_running_loop().run_in_executor(self._executor, work)

    async def _look_up(
        self, digest: str, categorical: np.ndarray, sequence: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        with LOOK_UP_SECONDS.labels(digest).time():
            return await self.source.look_up(digest, categorical, sequence)

    def choose(self, version: str, tensors: Mapping[str, np.ndarray]) -> RankerVersion:
        """The version that is named, or that the user's share falls to: the same one at every request.

        Raises:
            NotServed: If it is not loaded here.
        """
        return self._held(version or route(self._routes, tensors.get("user_id")))

    def _held(self, digest: str) -> RankerVersion:
        held = self._versions.get(digest)
        if held is None:
            served = [name[:12] for name in self._versions]
            raise NotServed(f"version {digest[:64]!r} is not served here; there are {served}")
        return held


def route(routes: Mapping[str, float], user: np.ndarray | None) -> str:
    """The version of a user: the hash of the user says where in the shares, laid side by side, it falls."""
    ordered = sorted(routes.items())
    if len(ordered) > 1 and user is not None and user.size:
        first = user.flat[0]
        place = zlib.crc32(first if isinstance(first, bytes) else str(first).encode()) / 2**32
        for digest, share in ordered:
            if place < share:
                return digest
            place -= share
    return ordered[-1][0] if ordered else ""
