"""Where a ranker gets rows of embedding tables: from the embedding tier, or in its own process."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from typing import Protocol

import grpc
import numpy as np

from components.common.errors import InputError
from components.serve.observability import UNKNOWN_IDS
from components.serve.protocol import CATEGORICAL, SEQUENCE, TABLES_MODEL, channel_options, pb, pb_grpc
from components.serve.tensors import arrays_of, infer_request
from components.version.packed_tables import PackedTables

Rows = tuple[np.ndarray, np.ndarray]


class VersionMismatch(RuntimeError):
    """The embedding tier answered with another version than it was asked for."""


class TableSource(Protocol):
    """Packed rows of one version."""

    async def look_up(self, version: str, categorical: np.ndarray, sequence: np.ndarray) -> Rows:
        """Rows of ids (n, C) and of a user's sequence (u, L, S)."""

    async def is_ready(self, version: str) -> bool:
        """Whether it has the version.

        Raises:
            grpc.RpcError: If nobody can say.
        """


def _retrying() -> str:
    """The service configuration of gRPC that tries again when a server cannot be reached, within the call's time-out.

    Look-ups change nothing, so a second try is always safe.
    """
    policy = {
        "maxAttempts": 5,
        "initialBackoff": "0.02s",
        "maxBackoff": "0.3s",
        "backoffMultiplier": 2,
        "retryableStatusCodes": ["UNAVAILABLE"],
    }
    return json.dumps({"methodConfig": [{"name": [{}], "retryPolicy": policy}]})


class RemoteTables:
    """Asks the embedding tier, and takes nothing but the version that it asked for."""

    def __init__(self, address: str, max_message_bytes: int, timeout_seconds: float) -> None:
        """Connect to `host:port` when first asked."""
        self._address = address
        self._options = [*channel_options(max_message_bytes), ("grpc.service_config", _retrying())]
        self._timeout_seconds = timeout_seconds
        self._stub: pb_grpc.GRPCInferenceServiceStub | None = None

    def _connected(self) -> pb_grpc.GRPCInferenceServiceStub:
        if self._stub is None:
            self._stub = pb_grpc.GRPCInferenceServiceStub(grpc.aio.insecure_channel(self._address, self._options))
        return self._stub

    async def look_up(self, version: str, categorical: np.ndarray, sequence: np.ndarray) -> Rows:
        """See `TableSource`.

        Raises:
            grpc.RpcError: If the tier cannot be reached in time, or refuses.
            VersionMismatch: If it answers with other tables.
        """
        request = infer_request(TABLES_MODEL, version, {CATEGORICAL: categorical, SEQUENCE: sequence})
        # Not wait_for_ready: a tier that is down must fail the look-up before its time-out.
        response = await self._connected().ModelInfer(request, timeout=self._timeout_seconds)
        if response.model_version != version:
            raise VersionMismatch(f"rows of version {response.model_version[:64]!r} came for {version[:12]}")
        try:
            rows = arrays_of(response.outputs, response.raw_output_contents)
            packed = rows[f"{CATEGORICAL}_rows"], rows[f"{SEQUENCE}_rows"]
        except (InputError, KeyError) as error:
            raise VersionMismatch(f"the embedding tier's answer is not readable: {error}") from error
        if len(packed[0]) != len(categorical) or packed[1].shape[:2] != sequence.shape[:2]:
            raise VersionMismatch(f"{packed[0].shape} and {packed[1].shape} rows came for {categorical.shape} ids")
        return packed

    async def is_ready(self, version: str) -> bool:
        """See `TableSource`."""
        request = pb.ModelReadyRequest(name=TABLES_MODEL, version=version)
        return bool((await self._connected().ModelReady(request, timeout=self._timeout_seconds)).ready)


def count_unknown(version: str, unknown: dict[str, int]) -> None:
    """Count the candidates of a request whose exact ids have no row of their own, by table."""
    for table, number in unknown.items():
        UNKNOWN_IDS.labels(version, table).inc(number)


class LocalTables:
    """Tables in the ranker's own process, for models that fit beside it."""

    def __init__(self, load: Callable[[str], PackedTables]) -> None:
        """Load a version's tables with a function."""
        self._load = load
        self._tables: dict[str, PackedTables] = {}

    async def look_up(self, version: str, categorical: np.ndarray, sequence: np.ndarray) -> Rows:
        """See `TableSource`."""
        tables, features = self._tables[version], self._tables[version].features
        rows, unknown = tables.look_up_and_count(features.categorical_tables, categorical)
        count_unknown(version, unknown)
        return rows, tables.look_up(features.sequence_tables, sequence)

    async def is_ready(self, version: str) -> bool:
        """See `TableSource`; loads the version."""
        if version not in self._tables:
            await asyncio.get_running_loop().run_in_executor(None, self.load, version)
        return True

    def load(self, version: str) -> None:
        """Load a version's tables."""
        self._tables = {**self._tables, version: self._load(version)}

    def keep(self, versions: tuple[str, ...]) -> None:
        """Let the others go."""
        self._tables = {version: tables for version, tables in self._tables.items() if version in versions}
