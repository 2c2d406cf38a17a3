"""The embedding tier: answers ids with packed INT4 rows, of exactly the version that is asked for.

Speaks the Open Inference Protocol v2 over gRPC. Rows leave as they lie in the file, and the ranker's graph decodes
them: so a look-up is one gather of NumPy, the tier needs no torch, and a row of 32 numbers is 20 bytes on the wire.
"""

from __future__ import annotations

import logging
import threading
import time
from concurrent import futures
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Any

import grpc
import numpy as np

from components.common.deployments import known_deployment, open_deployment
from components.common.errors import InputError
from components.common.layout import Store
from components.serve.config import EmbeddingTierConfig
from components.serve.control import ControlGuard
from components.serve.health import serve_health
from components.serve.loading import UnloadedVersions, load_named
from components.serve.observability import IN_FLIGHT, LOADED, REQUEST_SECONDS, REQUESTS, ROWS, log_as_json, log_event
from components.serve.protocol import CATEGORICAL, SEQUENCE, STOPPING, TABLES_MODEL, pb, pb_grpc
from components.serve.stopping import end_at_once, when_told_to_stop
from components.serve.table_source import count_unknown
from components.serve.tensors import arrays_of, infer_response, shortened
from components.serve.tier_credentials import TierCredentials
from components.version.local_copies import keep_copies
from components.version.packed_tables import PackedTables
from components.version.version import Version

_TIER = "embedding"
_LOOK_SECONDS = 0.2
_UNKNOWN = "unknown"


class Loading(RuntimeError):
    """Versions are being loaded."""


class TooLarge(InputError):
    """A request beyond a limit of this server, which its metadata states."""


class EmbeddingTier:
    """The tables of the versions that a deployment holds.

    Attributes:
        config: Its settings.
        credentials: The files that they name.
        ready: Whether versions are loaded, its server is open, and it was not told to stop.
    """

    def __init__(self, config: EmbeddingTierConfig) -> None:
        """Start without any version."""
        self.config, self.credentials = config, TierCredentials(config)
        self._store = Store(config.store_uri)
        self._tables: dict[str, PackedTables] = {}
        self._unloaded = UnloadedVersions(_TIER)
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
        self._tables = {**self._tables, digest: tables}
        LOADED.labels(_TIER, digest).set(1)
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


class EmbeddingServicer(pb_grpc.GRPCInferenceServiceServicer):
    """The protocol around an `EmbeddingTier`."""

    def __init__(self, tier: EmbeddingTier) -> None:
        """Answer for a tier."""
        self._tier = tier

    def ServerLive(self, request: Any, context: grpc.ServicerContext) -> pb.ServerLiveResponse:
        """Whether the process answers."""
        return pb.ServerLiveResponse(live=True)

    def ServerReady(self, request: Any, context: grpc.ServicerContext) -> pb.ServerReadyResponse:
        """Whether the deployment's versions are loaded, and it goes on."""
        return pb.ServerReadyResponse(ready=self._tier.ready)

    def ModelReady(self, request: pb.ModelReadyRequest, context: grpc.ServicerContext) -> pb.ModelReadyResponse:
        """Whether a version's tables are loaded and warm."""
        held = request.name == TABLES_MODEL and request.version in self._tier.versions
        return pb.ModelReadyResponse(ready=held and self._tier.ready)

    def ServerMetadata(self, request: Any, context: grpc.ServicerContext) -> pb.ServerMetadataResponse:
        """Limits of requests, as extensions of the protocol: it has no other place for them."""
        return pb.ServerMetadataResponse(name="afterclick-embedding", extensions=self._tier.config.stated_limits)

    def ModelMetadata(self, request: Any, context: grpc.ServicerContext) -> pb.ModelMetadataResponse:
        """Versions, inputs and outputs."""
        tensor = pb.ModelMetadataResponse.TensorMetadata
        shapes = {CATEGORICAL: [-1, -1], SEQUENCE: [-1, -1, -1]}
        return pb.ModelMetadataResponse(
            name=TABLES_MODEL,
            versions=self._tier.versions,
            platform="afterclick_int4",
            inputs=[tensor(name=name, datatype="INT64", shape=shape) for name, shape in shapes.items()],
            outputs=[
                tensor(name=f"{name}_rows", datatype="UINT8", shape=[*shape, -1]) for name, shape in shapes.items()
            ],
        )

    def RepositoryModelLoad(
        self, request: pb.RepositoryModelLoadRequest, context: grpc.ServicerContext
    ) -> pb.RepositoryModelLoadResponse:
        """Loading the deployment means to follow its record: load what it names, and let go what it does not."""
        if request.model_name != self._tier.config.deployment:
            context.abort(grpc.StatusCode.NOT_FOUND, self._tier.config.refusal(request.model_name))
        if not self._tier.ready:
            context.abort(grpc.StatusCode.UNAVAILABLE, STOPPING)
        try:
            self._tier.follow()
        except Loading as error:
            context.abort(grpc.StatusCode.UNAVAILABLE, str(error))
        except (InputError, OSError) as error:
            log_event("tables not loaded", logging.ERROR, reason=str(error))
            context.abort(grpc.StatusCode.FAILED_PRECONDITION, shortened(str(error)))
        return pb.RepositoryModelLoadResponse(model_name=request.model_name, isLoaded=True)

    def ModelInfer(self, request: pb.ModelInferRequest, context: grpc.ServicerContext) -> pb.ModelInferResponse:
        """Rows of ids, of the version that `model_version` names."""
        started, version = time.perf_counter(), request.model_version
        try:
            tables = self._tier.find(version)
        except KeyError:
            REQUESTS.labels(_TIER, _UNKNOWN, "FAILED_PRECONDITION").inc()
            loaded = [digest[:12] for digest in self._tier.versions]
            context.abort(
                grpc.StatusCode.FAILED_PRECONDITION,
                f"tables of version {version[:64]!r} are not loaded; there are {loaded}",
            )
        with IN_FLIGHT.labels(_TIER, version).track_inprogress():
            try:
                rows = self._tier.look_up(version, tables, arrays_of(request.inputs, request.raw_input_contents))
                response = infer_response(TABLES_MODEL, version, rows)
                self._check_size(response)
            except InputError as error:
                code = "RESOURCE_EXHAUSTED" if isinstance(error, TooLarge) else "INVALID_ARGUMENT"
                REQUESTS.labels(_TIER, version, code).inc()
                context.abort(grpc.StatusCode[code], shortened(str(error)))
        response.id = request.id
        ROWS.labels(version).inc(sum(values.size // values.shape[-1] for values in rows.values()))
        REQUESTS.labels(_TIER, version, "OK").inc()
        REQUEST_SECONDS.labels(_TIER, version).observe(time.perf_counter() - started)
        return response

    def _check_size(self, response: pb.ModelInferResponse) -> None:
        size, limit = response.ByteSize(), self._tier.config.max_message_bytes
        if size > limit:
            raise TooLarge(f"the rows of the request take {size} bytes, at most {limit} are allowed; send fewer rows")


def start(tier: EmbeddingTier) -> tuple[grpc.Server, int]:
    """Start answering; returns the server and its port."""
    config = tier.config
    executor = futures.ThreadPoolExecutor(config.threads, thread_name_prefix="look-up")
    guards, limit = (ControlGuard(tier.credentials),), config.max_requests
    server = grpc.server(executor, interceptors=guards, options=config.grpc_options, maximum_concurrent_rpcs=limit)
    pb_grpc.add_GRPCInferenceServiceServicer_to_server(EmbeddingServicer(tier), server)
    port = tier.credentials.add_port(server, f"[::]:{config.grpc_port}")
    tier.credentials.keep_fresh()
    server.start()
    tier.ready = True
    return server, port


def serve(config: EmbeddingTierConfig) -> None:
    """Serve until SIGTERM or SIGINT; then for `unready_seconds` as one that is not ready, and let requests end.

    Raises:
        InputError: If a version of the deployment cannot be loaded.
    """
    log_as_json()
    config.check_ports()
    when_told_to_stop(end_at_once)
    tier = EmbeddingTier(config)
    serve_health(config.http_port, lambda: tier.ready)
    tier.load()
    server, port = start(tier)
    # A queue may be filled by a handler that interrupts another one; an event may not.
    stopping: SimpleQueue[None] = SimpleQueue()
    when_told_to_stop(lambda: stopping.put(None))
    log_event("embedding tier ready", port=port, versions=tier.versions)
    _wait_for(stopping)
    tier.ready = False
    log_event("embedding tier stops")
    time.sleep(config.unready_seconds)
    server.stop(config.grace_seconds).wait()


def _wait_for(stopping: SimpleQueue[None]) -> None:
    """Until something is in a queue; a signal that comes to another thread does not wake this one, so it looks."""
    while True:
        try:
            return stopping.get(timeout=_LOOK_SECONDS)
        except Empty:
            continue
