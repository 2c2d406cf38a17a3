"""Where a ranker gets rows of embedding tables: from the embedding tier, or in its own process."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from typing import Protocol

import grpc
import numpy as np

from components.common.errors import InputError
from components.features.feature_list import FeatureConfig
from components.features.online_features import KnownOnline
from components.serve.credentials import ClientCertificates, made_out_to
from components.serve.deadline import seconds_left
from components.serve.observability import UNKNOWN_IDS
from components.serve.online_look_ups import USER, OnlineLookUps, known_in
from components.serve.protocol import CATEGORICAL, ONLINE_MODEL, SEQUENCE, TABLES_MODEL, channel_options, pb, pb_grpc
from components.serve.tensors import arrays_of, infer_request
from components.version.packed_tables import PackedTables

Rows = tuple[np.ndarray, np.ndarray]


class VersionMismatch(RuntimeError):
    """The embedding tier answered with another version than it was asked for."""


class TableSource(Protocol):
    """Packed rows of one version."""

    async def look_up(self, version: str, categorical: np.ndarray, sequence: np.ndarray) -> Rows:
        """Rows of ids (n, C) and of a user's sequence (u, L, S)."""

    async def look_up_online(
        self, version: str, features: FeatureConfig, user: int, entities: dict[str, np.ndarray]
    ) -> KnownOnline | None:
        """What is known online of a hashed user and of entities; None if nothing fits the version."""

    async def is_ready(self, version: str) -> bool:
        """Whether it has the version.

        Raises:
            grpc.RpcError: If nobody can say.
        """


def _retrying() -> str:
    """The service configuration of gRPC that asks all of a name's servers in turn, and another when one is not there.

    That is within the call's time-out. Look-ups change nothing, so a second try is always safe. A server that stops
    says CANCELLED to a call that it had not begun.
    """
    policy = {
        "maxAttempts": 5,
        "initialBackoff": "0.02s",
        "maxBackoff": "0.3s",
        "backoffMultiplier": 2,
        "retryableStatusCodes": ["UNAVAILABLE", "CANCELLED"],
    }
    methods = [{"name": [{}], "retryPolicy": policy}]
    return json.dumps({"loadBalancingConfig": [{"round_robin": {}}], "methodConfig": methods})


class RemoteTables:
    """Asks the embedding tier, and takes nothing but the version that it asked for."""

    def __init__(
        self,
        address: str,
        timeout_seconds: float,
        certificates: Callable[[], ClientCertificates | None] = lambda: None,
        server_name: str = "",
    ) -> None:
        """Connect to `host:port` when first asked, with the certificates that there are then, or none."""
        self._address, self._certificates = address, certificates
        self._options = [*channel_options(), ("grpc.service_config", _retrying()), *made_out_to(server_name)]
        self._longest_seconds = timeout_seconds
        self._channel: grpc.aio.Channel | None = None
        self._made_with: ClientCertificates | None = None
        self._closing: set[asyncio.Task[None]] = set()
        self._limits: dict[str, int] | None = None
        self._seen: set[str] = set()

    @property
    def _timeout_seconds(self) -> float:
        """Of one call: what is left of the request that it is for, but not longer than is set."""
        return min(self._longest_seconds, seconds_left())

    def _connected(self) -> pb_grpc.GRPCInferenceServiceStub:
        certificates = self._certificates()
        if self._channel is None or certificates != self._made_with:
            if self._channel is not None:
                # Look-ups that are under way end on the connection that they began with.
                closing = asyncio.get_running_loop().create_task(self._channel.close(grace=self._longest_seconds))
                self._closing.add(closing)
                closing.add_done_callback(self._closing.discard)
            self._channel, self._made_with = self._connect(certificates), certificates
            self._stub = pb_grpc.GRPCInferenceServiceStub(self._channel)
        return self._stub

    def _connect(self, certificates: ClientCertificates | None) -> grpc.aio.Channel:
        if certificates is None:
            return grpc.aio.insecure_channel(self._address, self._options)
        return grpc.aio.secure_channel(self._address, certificates.of_grpc(), self._options)

    async def look_up(self, version: str, categorical: np.ndarray, sequence: np.ndarray) -> Rows:
        """See `TableSource`.

        Raises:
            InputError: If the tier does not take so much in one request.
            grpc.RpcError: If the tier cannot be reached in time, or refuses.
            VersionMismatch: If it answers with other tables.
        """
        request = infer_request(TABLES_MODEL, version, {CATEGORICAL: categorical, SEQUENCE: sequence})
        await self._check_limits({"max_ids": categorical.size + sequence.size, "max_message_bytes": request.ByteSize()})
        rows = await self._ask(request)
        try:
            packed = rows[f"{CATEGORICAL}_rows"], rows[f"{SEQUENCE}_rows"]
        except KeyError as error:
            raise VersionMismatch(f"the embedding tier's answer is not readable: {error}") from error
        if len(packed[0]) != len(categorical) or packed[1].shape[:2] != sequence.shape[:2]:
            raise VersionMismatch(f"{packed[0].shape} and {packed[1].shape} rows came for {categorical.shape} ids")
        return packed

    async def _ask(self, request: pb.ModelInferRequest) -> dict[str, np.ndarray]:
        # Not wait_for_ready: a tier that is down must fail the look-up before its time-out.
        response = await self._connected().ModelInfer(request, timeout=self._timeout_seconds)
        version = request.model_version
        if response.model_version != version:
            raise VersionMismatch(f"an answer of version {response.model_version[:64]!r} came for {version[:12]}")
        try:
            return arrays_of(response.outputs, response.raw_output_contents)
        except InputError as error:
            raise VersionMismatch(f"the embedding tier's answer is not readable: {error}") from error

    async def look_up_online(
        self, version: str, features: FeatureConfig, user: int, entities: dict[str, np.ndarray]
    ) -> KnownOnline | None:
        """See `TableSource`; raises as `look_up` does."""
        hashes = {USER: np.array([user], dtype=np.uint64), **entities}
        request = infer_request(ONLINE_MODEL, version, {name: own.view(np.int64) for name, own in hashes.items()})
        found = {"max_ids": sum(map(len, hashes.values())), "max_message_bytes": request.ByteSize()}
        await self._check_limits(found)
        tensors = await self._ask(request)
        try:
            return known_in(tensors, features, user, entities)
        except InputError as error:
            raise VersionMismatch(f"the embedding tier's online features are of another request: {error}") from error

    async def _check_limits(self, found: dict[str, int]) -> None:
        """Compare a look-up with what the tier says that it takes, which is asked again before anything is refused.

        Raises:
            InputError: Naming what is too much, and the limit.
            grpc.RpcError: If the tier cannot be asked.
        """
        if self._limits is None or _beyond(self._limits, found):
            request = pb.ServerMetadataRequest()
            stated = {}
            try:
                answer = await self._connected().ServerMetadata(request, timeout=self._timeout_seconds)
                stated = dict(extension.split("=", 1) for extension in answer.extensions if "=" in extension)
            except grpc.RpcError as error:
                # A tier of an earlier release does not know the call.
                if error.code() != grpc.StatusCode.UNIMPLEMENTED:
                    raise
            self._limits = {name: int(stated[name]) for name in found if name in stated}
        for name in _beyond(self._limits, found):
            raise InputError(
                f"the request needs {found[name]} {_COUNTED[name]} of one look-up; the embedding tier takes at most "
                f"{self._limits[name]} ({name}): send fewer candidates a request"
            )

    async def is_ready(self, version: str) -> bool:
        """See `TableSource`.

        A server's tables are of use until it has ended, so it is not asked whether it says of itself that it is ready.
        """
        request = pb.ModelMetadataRequest(name=TABLES_MODEL)
        try:
            answer = await self._connected().ModelMetadata(request, timeout=self._timeout_seconds)
        except grpc.RpcError as error:
            if error.code() != grpc.StatusCode.RESOURCE_EXHAUSTED:
                raise
            # It is busy, and not gone.
            return version in self._seen
        self._seen = set(answer.versions)
        return version in self._seen


_COUNTED = {"max_ids": "ids", "max_message_bytes": "bytes"}


def _beyond(limits: dict[str, int], found: dict[str, int]) -> list[str]:
    """Limits that something is beyond."""
    return [name for name, limit in limits.items() if found[name] > limit]


def count_unknown(version: str, unknown: dict[str, int]) -> None:
    """Count the candidates of a request whose exact ids have no row of their own, by table."""
    for table, number in unknown.items():
        UNKNOWN_IDS.labels(version, table).inc(number)


class LocalTables:
    """Tables in the ranker's own process, for models that fit beside it."""

    def __init__(self, load: Callable[[str], PackedTables], online: OnlineLookUps) -> None:
        """Load a version's tables with a function, and what fits it of online features."""
        self._load, self._online = load, online
        self._tables: dict[str, PackedTables] = {}

    async def look_up(self, version: str, categorical: np.ndarray, sequence: np.ndarray) -> Rows:
        """See `TableSource`."""
        tables, features = self._tables[version], self._tables[version].features
        rows, unknown = tables.look_up_and_count(features.served_columns, categorical)
        count_unknown(version, unknown)
        return rows, tables.look_up(features.sequence_tables, sequence)

    async def is_ready(self, version: str) -> bool:
        """See `TableSource`; loads the version."""
        if version not in self._tables:
            await asyncio.get_running_loop().run_in_executor(None, self.load, version)
        return True

    def load(self, version: str) -> None:
        """Load a version's tables."""
        tables = self._load(version)
        self._online.hold(version, tables.features)
        self._tables = {**self._tables, version: tables}

    async def look_up_online(
        self, version: str, features: FeatureConfig, user: int, entities: dict[str, np.ndarray]
    ) -> KnownOnline | None:
        """See `TableSource`."""
        return self._online.look_up(version, user, entities)

    def keep(self, versions: tuple[str, ...]) -> None:
        """Let the others go."""
        self._tables = {version: tables for version, tables in self._tables.items() if version in versions}
        self._online.keep(versions)
