"""The ranker tier's server: KServe's model server around a `RankerTier`, over gRPC and REST."""

from __future__ import annotations

import logging
from typing import Any

import grpc
import kserve
from fastapi import Request
from fastapi.responses import JSONResponse
from grpc_interceptor import exceptions as grpc_errors
from kserve import model_server
from kserve.model_repository import ModelRepository
from kserve.protocol.dataplane import DataPlane
from kserve.protocol.grpc.interceptors import ExceptionToStatusInterceptor
from kserve.protocol.grpc.server import GRPCServer
from kserve.protocol.grpc.servicer import InferenceServicer
from kserve.protocol.model_repository_extension import ModelRepositoryExtension

from components.common.errors import InputError
from components.serve.config import RankerTierConfig
from components.serve.observability import log_as_json, log_event
from components.serve.protocol import pb_grpc
from components.serve.ranker_model import RankerModel
from components.serve.ranker_tier import RankerTier
from components.serve.tensors import shortened

_HTTP_STATUS = {
    grpc.StatusCode.INVALID_ARGUMENT: 400,
    grpc.StatusCode.NOT_FOUND: 404,
    grpc.StatusCode.FAILED_PRECONDITION: 409,
    grpc.StatusCode.RESOURCE_EXHAUSTED: 429,
    grpc.StatusCode.UNAVAILABLE: 503,
    grpc.StatusCode.DEADLINE_EXCEEDED: 504,
}


class _Repository(ModelRepository):
    """KServe unloads its models when it is told to stop; requests that still come then are answered all the same."""

    def unload(self, name: str) -> None:
        self.models[name].ready = False


class _GrpcServer(GRPCServer):
    """KServe's, with a limit of calls at one time, and a port of its own."""

    async def start(self, max_workers: int) -> None:
        self._server = grpc.aio.server(
            interceptors=(ExceptionToStatusInterceptor(),),
            options=[
                ("grpc.max_send_message_length", self._kwargs["grpc_max_send_message_length"]),
                ("grpc.max_receive_message_length", self._kwargs["grpc_max_receive_message_length"]),
                ("grpc.so_reuseport", 0),
                ("grpc.http2.min_ping_interval_without_data_ms", 5_000),
            ],
            maximum_concurrent_rpcs=self._kwargs["max_rpcs"],
        )
        servicer = InferenceServicer(self._data_plane, self._model_repository_extension)
        pb_grpc.add_GRPCInferenceServiceServicer_to_server(servicer, self._server)
        self._server.add_insecure_port(f"[::]:{self._port}")
        await self._server.start()
        await self._server.wait_for_termination()


class _BodyLimit:
    """Refuses bodies of REST requests beyond a size, while they come."""

    def __init__(self, app: Any, limit: int) -> None:
        self._app, self._limit = app, limit

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        parts, size, more = [], 0, True
        while more:
            message = await receive()
            if message["type"] != "http.request":
                return
            parts.append(message.get("body", b""))
            size, more = size + len(parts[-1]), message.get("more_body", False)
            if size > self._limit:
                error = {"error": f"the body is larger than {self._limit} bytes"}
                await JSONResponse(error, 413, {"Connection": "close"})(scope, receive, send)
                return
        whole = iter([{"type": "http.request", "body": b"".join(parts), "more_body": False}])

        async def replay() -> Any:
            return next(whole, None) or await receive()

        await self._app(scope, replay, send)


class _DataPlane(DataPlane):
    """KServe's, but it does not ask before every request whether the model is ready, and knows versions."""

    def __init__(self, repository: ModelRepository, model: RankerModel) -> None:
        super().__init__(repository)
        self._model = model

    async def get_model(self, name: str) -> kserve.Model:
        return self.get_model_from_registry(name)

    async def ready(self) -> bool:
        return await self._model.healthy()

    async def model_ready(self, model_name: str, disable_predictor_health_check: bool = False) -> bool:
        return model_name in self._model.tier.versions or await super().model_ready(model_name)


class _Extension(ModelRepositoryExtension):
    """Loading the deployment means to follow its record; unloading it, to take this server out of service."""

    def __init__(self, model: RankerModel, repository: ModelRepository) -> None:
        super().__init__(repository)
        self._model = model

    async def load(self, model_name: str) -> dict[str, Any]:
        self._check(model_name)
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


def _grpc_error_as_http(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, grpc_errors.GrpcException)
    return JSONResponse({"error": error.details}, _HTTP_STATUS.get(error.status_code, 500))


def serve(config: RankerTierConfig) -> None:
    """Serve until SIGTERM or SIGINT, then let requests end.

    Raises:
        InputError: If a version of the deployment cannot be loaded.
    """
    log_as_json()
    config.check_ports()
    tier = RankerTier(config)
    tier.load()
    model = RankerModel(tier)
    model_server.args.grpc_max_receive_message_length = config.max_message_bytes
    model_server.args.grpc_max_send_message_length = config.max_message_bytes
    # Health and rollouts get through when all requests are taken.
    model_server.args.max_rpcs = config.max_requests + 16
    model_server.GRPCServer = _GrpcServer
    model_server.app.add_middleware(_BodyLimit, limit=config.max_message_bytes)
    model_server.app.add_exception_handler(grpc_errors.GrpcException, _grpc_error_as_http)
    repository = _Repository()
    server = kserve.ModelServer(
        http_port=config.http_port,
        grpc_port=config.grpc_port,
        registered_models=repository,
        enable_latency_logging=False,
        grace_period=int(config.grace_seconds),
    )
    server.dataplane = _DataPlane(repository, model)
    server.model_repository_extension = _Extension(model, repository)
    # KServe's own handlers and lines give way to one JSON object a line.
    for name in ("kserve", "kserve.trace", "uvicorn", "uvicorn.access", "uvicorn.error"):
        logger = logging.getLogger(name)
        logger.handlers, logger.propagate = [], True
        logger.setLevel(logging.WARNING)
    log_event("ranker tier ready", port=config.grpc_port, versions=tier.versions)
    server.start([model])
