"""The ranker tier's server: KServe's model server around a `RankerTier`, over gRPC and REST."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Coroutine
from typing import Any

import grpc
import kserve
from grpc_interceptor import exceptions as grpc_errors
from kserve import model_server
from kserve.constants.constants import PredictorProtocol
from kserve.model_repository import ModelRepository
from kserve.protocol.dataplane import DataPlane
from kserve.protocol.grpc.interceptors import ExceptionToStatusInterceptor
from kserve.protocol.grpc.server import GRPCServer
from kserve.protocol.grpc.servicer import InferenceServicer
from kserve.protocol.model_repository_extension import ModelRepositoryExtension
from kserve.protocol.rest.server import RESTServer

from components.common.errors import InputError
from components.serve.binary_body import LENGTH_HEADER, read_binary_body
from components.serve.config import RankerTierConfig
from components.serve.control import AsyncControlGuard
from components.serve.deadline import ending_within
from components.serve.health import serve_health
from components.serve.observability import log_as_json, log_event
from components.serve.openapi import openapi_document
from components.serve.protocol import METRICS_AT, STOPPING, pb, pb_grpc
from components.serve.ranker_model import OTHER_PROTOCOL, RankerModel
from components.serve.ranker_tier import RankerTier
from components.serve.rest import Admission, answer_errors
from components.serve.stopping import end_at_once, when_told_to_stop
from components.serve.tensors import shortened

_HEALTH_SECONDS = 2.0


class _Servicer(InferenceServicer):
    """KServe's, with a limit of requests at one time, and the caller's time-out."""

    async def ModelInfer(self, request: pb.ModelInferRequest, context: grpc.aio.ServicerContext) -> Any:
        with self._data_plane.model.admitted(), ending_within(context.time_remaining()):
            return await super().ModelInfer(request, context)

    async def ModelMetadata(self, request: pb.ModelMetadataRequest, context: grpc.aio.ServicerContext) -> Any:
        return pb.ModelMetadataResponse(**await self._data_plane.model_metadata(request.name, request.version))


class _Statuses(ExceptionToStatusInterceptor):
    """KServe's, whose messages quote names as they came; one beyond gRPC's limit ends the call without any."""

    async def handle_exception(self, ex: Any, *call: Any) -> None:
        if hasattr(ex, "reason"):
            ex.reason = shortened(str(ex.reason))
        await super().handle_exception(ex, *call)


class _GrpcServer(GRPCServer):
    """KServe's, with a limit of calls at one time, and a port of its own."""

    async def start(self, max_workers: int) -> None:
        credentials = self._data_plane.model.tier.credentials
        self._server = grpc.aio.server(
            interceptors=(AsyncControlGuard(credentials), _Statuses()),
            options=self._data_plane.model.tier.config.grpc_options,
            maximum_concurrent_rpcs=self._kwargs["max_rpcs"],
        )
        servicer = _Servicer(self._data_plane, self._model_repository_extension)
        pb_grpc.add_GRPCInferenceServiceServicer_to_server(servicer, self._server)
        credentials.add_port(self._server, f"[::]:{self._port}")
        await self._server.start()
        self._data_plane.model.serving = True
        await self._server.wait_for_termination()


class _RestServer(RESTServer):
    """KServe's, which leaves signals to the whole server."""

    def __init__(self, *args: Any, **settings: Any) -> None:
        super().__init__(*args, **settings)
        self._server.capture_signals = contextlib.nullcontext
        credentials = self.dataplane.model.tier.credentials
        if credentials.encrypted:
            # KServe's own reload takes a half-written pair, and then answers nobody.
            self.config.ssl_context_factory = lambda *_: credentials.rest_context()

    def stop(self) -> None:
        """Take no new connections, and end when requests are answered."""
        self._server.should_exit = True


class _DataPlane(DataPlane):
    """KServe's, but it does not ask before every request whether the model is ready, and knows versions."""

    def __init__(self, repository: ModelRepository, model: RankerModel) -> None:
        super().__init__(repository)
        self.model = model
        self._scheme = "https" if model.tier.credentials.encrypted else "http"

    def metadata(self) -> dict[str, Any]:
        """KServe's, with the limits of requests and the port of /metrics as extensions: there is no other place."""
        known, config = super().metadata(), self.model.tier.config
        at = f"http:{config.health_port}" if config.health_port else f"{self._scheme}:{config.http_port}"
        stated = [*config.stated_limits, f"{METRICS_AT}={at}"]
        return {**known, "extensions": [*known["extensions"], *stated]}

    async def model_metadata(self, model_name: str, version: str = "") -> dict[str, Any]:
        """KServe's, of a version: the first of those that it names."""
        model = self.get_model_from_registry(model_name)
        versions = model.versions(version)
        inputs, outputs = model.get_input_types(versions[0]), model.get_output_types(versions[0])
        return {"name": model_name, "versions": versions, "platform": "", "inputs": inputs, "outputs": outputs}

    def decode(self, body: Any, headers: Any, protocol_version: str = "", model_name: str = "") -> Any:
        """KServe's for JSON; it decodes other contents before they are checked, and events that no model takes."""
        if protocol_version != PredictorProtocol.REST_V2.value:
            raise grpc_errors.InvalidArgument(OTHER_PROTOCOL)
        if isinstance(body, bytes):
            return read_binary_body(body, headers.get(LENGTH_HEADER), model_name), {}
        return super().decode(body, headers, protocol_version, model_name)

    def encode(self, model_name: str, response: Any, headers: Any, req_attributes: Any) -> Any:
        return super().encode(model_name, response, {}, req_attributes)

    async def get_model(self, name: str) -> kserve.Model:
        return self.get_model_from_registry(name)

    async def ready(self) -> bool:
        return await self.model.healthy()

    async def model_ready(self, model_name: str, disable_predictor_health_check: bool = False) -> bool:
        if disable_predictor_health_check:
            # Asked before each REST request: one that still comes to a server that stops is answered, as in gRPC.
            return self.get_model_from_registry(model_name) is not None
        if model_name in self.model.tier.versions:
            return self.model.serving
        return await super().model_ready(model_name)


class _Extension(ModelRepositoryExtension):
    """Loading the deployment means to follow its record; unloading it, to take this server out of service."""

    def __init__(self, model: RankerModel, repository: ModelRepository) -> None:
        super().__init__(repository)
        self._model = model

    async def load(self, model_name: str) -> dict[str, Any]:
        self._check(model_name)
        if not self._model.serving:
            raise grpc_errors.Unavailable(STOPPING)
        try:
            await self._model.tier.follow()
        except (InputError, OSError) as error:
            log_event("deployment not followed", logging.ERROR, reason=str(error))
            raise grpc_errors.FailedPrecondition(shortened(str(error))) from None
        except grpc.RpcError as error:
            raise grpc_errors.Unavailable(f"embedding tier: {error.details()}") from None
        self._model.ready = True
        return {"name": model_name, "load": True}

    async def unload(self, model_name: str) -> dict[str, Any]:
        self._check(model_name)
        self._model.ready = False
        return {"name": model_name, "unload": True}

    def _check(self, name: str) -> None:
        if name != self._model.tier.config.deployment:
            raise grpc_errors.NotFound(self._model.tier.config.refusal(name))


class _Server(kserve.ModelServer):
    """KServe's; when it is told to stop it first says that it is not ready, and goes on until nobody comes any more."""

    def __init__(self, model: RankerModel) -> None:
        config = model.tier.config
        super().__init__(
            http_port=config.http_port,
            grpc_port=config.grpc_port,
            enable_latency_logging=False,
            grace_period=config.grace_seconds,
            ssl_certfile=None,
            ssl_keyfile=None,
        )
        self._model = model
        self.dataplane = _DataPlane(self.registered_models, model)
        self.model_repository_extension = _Extension(model, self.registered_models)

    def register_signal_handler(self) -> None:
        """Not yet: signals are for the event loop."""

    async def _serve(self) -> None:
        loop, told = asyncio.get_running_loop(), asyncio.Event()
        when_told_to_stop(lambda: loop.call_soon_threadsafe(told.set))
        if port := self._model.tier.config.health_port:
            serve_health(port, lambda: _result(self._model.healthy(), loop))
        await asyncio.gather(super()._serve(), self._stop_when(told))

    async def _stop_when(self, told: asyncio.Event) -> None:
        await told.wait()
        self._model.serving = False
        log_event("ranker tier stops")
        await asyncio.sleep(self._model.tier.config.unready_seconds)
        self._rest_server.stop()
        await self._grpc_server.stop()


def _result(asked: Coroutine[Any, Any, bool], loop: asyncio.AbstractEventLoop) -> bool:
    """What the event loop says to another thread; no, if it says nothing."""
    try:
        return asyncio.run_coroutine_threadsafe(asked, loop).result(_HEALTH_SECONDS)
    except TimeoutError:
        return False


def serve(config: RankerTierConfig) -> None:
    """Serve until SIGTERM or SIGINT; then for `unready_seconds` as one that is not ready, and let requests end.

    Raises:
        InputError: If a version of the deployment cannot be loaded.
    """
    log_as_json()
    config.check_ports()
    when_told_to_stop(end_at_once)
    tier = RankerTier(config)
    tier.load()
    tier.credentials.keep_fresh()
    model = RankerModel(tier)
    model_server.args.grpc_max_receive_message_length = config.max_message_bytes
    model_server.args.grpc_max_send_message_length = config.max_message_bytes
    # Health and rollouts get through when all requests are taken.
    model_server.args.max_rpcs = config.max_requests + 16
    model_server.GRPCServer, model_server.RESTServer = _GrpcServer, _RestServer
    model_server.app.add_middleware(Admission, model=model)
    answer_errors(model_server.app)
    document = openapi_document(config)
    # FastAPI serves what this returns at /openapi.json.
    model_server.app.openapi = lambda: document
    server = _Server(model)
    # KServe's own handlers and lines give way to one JSON object a line.
    for name in ("kserve", "kserve.trace", "uvicorn", "uvicorn.access", "uvicorn.error"):
        logger = logging.getLogger(name)
        logger.handlers, logger.propagate = [], True
        logger.setLevel(logging.WARNING)
    log_event("ranker tier ready", port=config.grpc_port, versions=tier.versions)
    server.start([model])
