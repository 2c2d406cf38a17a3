"""The embedding tier's server: answers ids with packed INT4 rows, of exactly the version that is asked for.

Speaks the Open Inference Protocol v2 over gRPC.
"""

from __future__ import annotations

import logging
import time
from concurrent import futures
from queue import Empty, SimpleQueue
from typing import Any

import grpc

from components.common.errors import InputError
from components.serve.config import EmbeddingTierConfig
from components.serve.control import ControlGuard
from components.serve.embedding_tier import TIER, EmbeddingTier, Loading, TooLarge
from components.serve.health import serve_health
from components.serve.observability import IN_FLIGHT, REQUEST_SECONDS, REQUESTS, ROWS, log_as_json, log_event
from components.serve.protocol import CATEGORICAL, ONLINE_MODEL, SEQUENCE, STOPPING, TABLES_MODEL, pb, pb_grpc
from components.serve.stopping import end_at_once, when_told_to_stop
from components.serve.tensors import arrays_of, infer_response, shortened

_LOOK_SECONDS = 0.2
_UNKNOWN = "unknown"


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
        """Rows of ids, or what is known online, for the version that `model_version` names."""
        started, version = time.perf_counter(), request.model_version
        try:
            tables = self._tier.find(version)
        except KeyError:
            REQUESTS.labels(TIER, _UNKNOWN, "FAILED_PRECONDITION").inc()
            loaded = [digest[:12] for digest in self._tier.versions]
            context.abort(
                grpc.StatusCode.FAILED_PRECONDITION,
                f"tables of version {version[:64]!r} are not loaded; there are {loaded}",
            )
        is_online = request.model_name == ONLINE_MODEL
        model, look_up = (ONLINE_MODEL, self._tier.look_up_online) if is_online else (TABLES_MODEL, self._tier.look_up)
        with IN_FLIGHT.labels(TIER, version).track_inprogress():
            try:
                found = look_up(version, tables, arrays_of(request.inputs, request.raw_input_contents))
                response = infer_response(model, version, found)
                self._check_size(response)
            except InputError as error:
                code = "RESOURCE_EXHAUSTED" if isinstance(error, TooLarge) else "INVALID_ARGUMENT"
                REQUESTS.labels(TIER, version, code).inc()
                context.abort(grpc.StatusCode[code], shortened(str(error)))
        response.id = request.id
        if not is_online:
            ROWS.labels(version).inc(sum(values.size // values.shape[-1] for values in found.values()))
        REQUESTS.labels(TIER, version, "OK").inc()
        REQUEST_SECONDS.labels(TIER, version).observe(time.perf_counter() - started)
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
    tier.online.keep_fresh(config.online_seconds)
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
