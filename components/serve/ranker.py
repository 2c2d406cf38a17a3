"""The ranker tier: from raw features to probabilities, every answer by tables and ranker of one version."""

from __future__ import annotations

import asyncio
import dataclasses
import logging
import time
import zlib
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TypeVar

import grpc
import numpy as np

from components.common.errors import InputError
from components.common.layout import Store
from components.common.objectives import SERVED_OBJECTIVES
from components.common.packed_tables import finest_of, look_up_rows
from components.common.servable import ONNX_INPUTS, ONNX_OUTPUT
from components.serve.config import RankerTierConfig
from components.serve.deployment import open_deployment
from components.serve.observability import (
    CANDIDATES,
    IN_FLIGHT,
    LOADED,
    LOOK_UP_SECONDS,
    RANK_SECONDS,
    ROUTED,
    log_event,
)
from components.serve.request import Field, RequestContract
from components.serve.session import start_session
from components.serve.table_source import LocalTables, RemoteTables, TableSource
from components.serve.version import Version

_TIER = "ranker"
_Found = TypeVar("_Found")


class NotServed(InputError):
    """A version that this tier does not hold."""


@dataclass
class RankerVersion:
    """One version's ranker.

    Attributes:
        digest: The version.
        contract: What its requests carry.
        run: From the graph's inputs, in order, to probabilities of all objectives, shape (n, objectives).
        columns: Of the served objectives in these.
        in_flight: Requests that it is answering.
    """

    digest: str
    contract: RequestContract
    run: Callable[[tuple[np.ndarray, ...]], np.ndarray]
    columns: dict[str, int]
    in_flight: int = 0
    idle: asyncio.Event = dataclasses.field(default_factory=asyncio.Event)

    @classmethod
    def load(cls, version: Version, num_threads: int) -> RankerVersion:
        """Start a version's session and run it once.

        Raises:
            InputError: If its files are damaged or do not fit each other.
        """
        session = start_session(version.onnx(), version.uri, num_threads)

        def run(inputs: tuple[np.ndarray, ...]) -> np.ndarray:
            return np.asarray(session.run([ONNX_OUTPUT], dict(zip(ONNX_INPUTS, inputs, strict=True)))[0])

        objectives = version.details.objectives
        found = run(_empty_inputs(version))
        if found.shape != (2, len(objectives)) or not set(SERVED_OBJECTIVES) <= set(objectives):
            raise InputError(f"{version.uri}: answers {found.shape} for objectives {list(objectives)}; export it again")
        columns = {name: objectives.index(name) for name in SERVED_OBJECTIVES}
        return cls(version.digest, version.contract(), run, columns)

    @contextmanager
    def answering(self) -> Iterator[None]:
        """Count a request."""
        self.in_flight += 1
        self.idle.clear()
        IN_FLIGHT.labels(_TIER, self.digest).inc()
        try:
            yield
        finally:
            self.in_flight -= 1
            IN_FLIGHT.labels(_TIER, self.digest).dec()
            if not self.in_flight:
                self.idle.set()

    async def drained(self, timeout_seconds: float) -> bool:
        """Wait until it answers no request; whether that came in time."""
        if not self.in_flight:
            return True
        try:
            await asyncio.wait_for(self.idle.wait(), timeout_seconds)
        except TimeoutError:
            return False
        return True


def _empty_inputs(version: Version) -> tuple[np.ndarray, ...]:
    """Rows of zeros of two candidates."""
    features, specs = version.details.features, list(version.details.tables)
    row_bytes = finest_of(specs).row_bytes
    look_ups = [
        len(look_up_rows(tables, specs, features)) for tables in (features.categorical_tables, features.sequence_tables)
    ]
    return (
        np.zeros((2, look_ups[0], row_bytes), dtype=np.uint8),
        np.zeros((2, len(features.dense_names)), dtype=np.float32),
        np.zeros((1, features.sequence.length, look_ups[1], row_bytes), dtype=np.uint8),
        np.ones(1, dtype=np.int64),
        np.zeros(2, dtype=np.int64),
    )


@dataclass(frozen=True)
class Ranking:
    """An answer.

    Attributes:
        version: Whose tables and ranker made it.
        probabilities: Of un-sampled impressions, by served objective, float32, shape (n,) each.
    """

    version: str
    probabilities: dict[str, np.ndarray]


class RankerTier:
    """The rankers of the versions that a deployment holds, and which of them answers whom."""

    def __init__(self, config: RankerTierConfig, source: TableSource | None = None) -> None:
        """Start without any version; rows come from a source, or from what the configuration says."""
        self.config = config
        self._store = Store(config.store_uri)
        self._versions: dict[str, RankerVersion] = {}
        self._routes: dict[str, float] = {}
        self._executor = ThreadPoolExecutor(config.threads, thread_name_prefix="rank")
        self._loader = ThreadPoolExecutor(1, thread_name_prefix="load")
        self._following = asyncio.Lock()
        self.source = source or self._make_source()

    def _make_source(self) -> TableSource:
        config = self.config
        if config.embedding_address:
            return RemoteTables(config.embedding_address, config.max_message_bytes, config.look_up_seconds)
        return LocalTables(lambda digest: Version.published(self._store, digest).tables())

    @property
    def versions(self) -> list[str]:
        """Those that are loaded."""
        return sorted(self._versions)

    @property
    def routes(self) -> dict[str, float]:
        """Shares of the users by version."""
        return dict(self._routes)

    @property
    def fields(self) -> list[Field]:
        """What requests carry to the version that most users are routed to."""
        chosen = max(self._routes, key=lambda digest: self._routes[digest])
        return list(self._versions[chosen].contract.fields.values())

    def load(self) -> None:
        """Load what the deployment's record names, before the first request.

        Raises:
            InputError: If a version that users are routed to is absent or damaged.
        """
        deployment = open_deployment(self._store, self.config.deployment)
        for digest in deployment.rankers:
            try:
                self._load(digest)
            except (InputError, OSError) as error:
                if digest in deployment.routes:
                    raise
                log_event("ranker not loaded", logging.ERROR, version=digest, reason=str(error))
        self._route(deployment.routes)

    async def follow(self) -> None:
        """Do what the deployment's record says: load, route, and let go of what has no requests left.

        Raises:
            InputError: If a version is absent or damaged, or the tables of a routed version are not ready. Then all
                users stay where they were.
            grpc.RpcError: If the embedding tier cannot be asked.
        """
        async with self._following:
            deployment = open_deployment(self._store, self.config.deployment)
            for digest in deployment.rankers:
                if digest not in self._versions:
                    await asyncio.get_running_loop().run_in_executor(self._loader, self._load, digest)
            for digest in deployment.routes:
                if not await self.source.is_ready(digest):
                    raise InputError(f"tables of version {digest[:12]} are not ready; load them before it is routed to")
            self._route(deployment.routes)
            gone = [self._versions[digest] for digest in self._versions if digest not in deployment.rankers]
            self._versions = {digest: self._versions[digest] for digest in deployment.rankers}
            for version in gone:
                drained = await version.drained(self.config.drain_seconds)
                LOADED.labels(_TIER, version.digest).set(0)
                log_event("ranker unloaded", version=version.digest, drained=drained)
            if isinstance(self.source, LocalTables):
                self.source.keep(deployment.tables)

    def _load(self, digest: str) -> None:
        started = time.monotonic()
        version = RankerVersion.load(Version.published(self._store, digest), self.config.session_threads)
        self._versions = {**self._versions, digest: version}
        LOADED.labels(_TIER, digest).set(1)
        log_event("ranker loaded", version=digest, seconds=round(time.monotonic() - started, 3))

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
        chosen = self._choose(version, tensors)
        with chosen.answering():
            request = await self._run(lambda: chosen.contract.read(tensors, self.config.limits))
            categorical, sequence, lengths = await self._run(lambda: chosen.contract.ids(request))
            # The look-up is on its way while the other features are made.
            looked_up = asyncio.create_task(self._look_up(chosen.digest, categorical, sequence))
            try:
                dense = await self._run(lambda: chosen.contract.dense(request))
                rows, positions = await looked_up
            finally:
                looked_up.cancel()
            users = np.zeros(len(rows), dtype=np.int64)
            with RANK_SECONDS.labels(chosen.digest).time():
                found = await self._run(lambda: chosen.run((rows, dense, positions, lengths, users)))
            CANDIDATES.labels(chosen.digest).inc(len(found))
        return Ranking(chosen.digest, {name: found[:, column] for name, column in chosen.columns.items()})

    async def _run(self, work: Callable[[], _Found]) -> _Found:
        return await asyncio.get_running_loop().run_in_executor(self._executor, work)

    async def _look_up(
        self, digest: str, categorical: np.ndarray, sequence: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        with LOOK_UP_SECONDS.labels(digest).time():
            return await self.source.look_up(digest, categorical, sequence)

    def _choose(self, version: str, tensors: Mapping[str, np.ndarray]) -> RankerVersion:
        """The version that is named, or that the user's share falls to: the same one at every request."""
        digest = version or route(self._routes, tensors.get("user_id"))
        found = self._versions.get(digest)
        if found is None:
            served = [name[:12] for name in self._versions]
            raise NotServed(f"version {digest[:64]!r} is not served here; there are {served}")
        return found


def route(routes: Mapping[str, float], user: np.ndarray | None) -> str:
    """The version of a user: the hash of the user says where in the shares, laid side by side, it falls."""
    ordered = sorted(routes.items())
    if len(ordered) > 1 and user is not None and user.size:
        place = zlib.crc32(repr(user.flat[0]).encode()) / 2**32
        for digest, share in ordered:
            if place < share:
                return digest
            place -= share
    return ordered[-1][0] if ordered else ""
