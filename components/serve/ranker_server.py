"""The ranker tier's server: KServe's model server around a `RankerTier`, over gRPC and REST."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import grpc
import kserve
import numpy as np
from fastapi import Request
from fastapi.responses import JSONResponse
from grpc_interceptor import exceptions as grpc_errors
from kserve import model_server
from kserve.model_repository import ModelRepository
from kserve.protocol.dataplane import DataPlane
from kserve.protocol.model_repository_extension import ModelRepositoryExtension

from components.common.errors import InputError
from components.common.objectives import SERVED_OBJECTIVES
from components.serve.config import RankerTierConfig
from components.serve.observability import REQUEST_SECONDS, REQUESTS, log_as_json, log_event
from components.serve.ranker import NotServed, RankerTier, Ranking
from components.serve.table_source import VersionMismatch

MODEL = "ranker"
_TIER = "ranker"
_HTTP_STATUS = {
    grpc.StatusCode.INVALID_ARGUMENT: 400,
    grpc.StatusCode.NOT_FOUND: 404,
    grpc.StatusCode.FAILED_PRECONDITION: 409,
    grpc.StatusCode.RESOURCE_EXHAUSTED: 429,
    grpc.StatusCode.UNAVAILABLE: 503,
    grpc.StatusCode.DEADLINE_EXCEEDED: 504,
}


class RankerModel(kserve.Model):
    """The protocol around a tier: every version answers under one name, `model_version` chooses among them."""

    def __init__(self, tier: RankerTier) -> None:
        """Answer for a tier that has loaded its versions."""
        super().__init__(MODEL)
        self.tier = tier
        self.ready = True
        self._answering = 0

    async def healthy(self) -> bool:
        """Whether every version that may be asked has its ranker and its tables."""
        return self.ready and await self.tier.is_ready()

    def get_input_types(self) -> list[dict[str, Any]]:
        """The inputs of the version that most users are routed to."""
        return [
            {"name": field.name, "datatype": field.datatype, "shape": [1 if field.part == "user" else -1]}
            for field in self.tier.fields
        ]

    def get_output_types(self) -> list[dict[str, Any]]:
        """A probability a candidate for each served objective."""
        return [{"name": name, "datatype": "FP32", "shape": [-1]} for name in SERVED_OBJECTIVES]

    async def predict(
        self,
        payload: kserve.InferRequest,
        headers: dict[str, str] | None = None,
        response_headers: dict[str, str] | None = None,
    ) -> kserve.InferResponse:
        """Answer one request."""
        if not isinstance(payload, kserve.InferRequest):
            raise grpc_errors.InvalidArgument("send an inference request of the Open Inference Protocol v2")
        started, code, version = time.perf_counter(), "OK", "unknown"
        try:
            with self._counted():
                ranking = await self._rank(payload)
            version = ranking.version
            REQUEST_SECONDS.labels(_TIER, version).observe(time.perf_counter() - started)
            return _response(payload, ranking)
        except grpc_errors.GrpcException as error:
            code = error.status_code.name
            raise
        except asyncio.CancelledError:
            code = "CANCELLED"
            raise
        except Exception:
            code = "INTERNAL"
            logging.getLogger(__name__).exception("request failed")
            raise grpc_errors.Internal("the request failed; the server's log says why") from None
        finally:
            REQUESTS.labels(_TIER, version, code).inc()

    @contextmanager
    def _counted(self) -> Iterator[None]:
        """Refuse a request beyond the limit instead of letting all of them wait."""
        limit = self.tier.config.max_requests
        if self._answering >= limit:
            raise grpc_errors.ResourceExhausted(f"{limit} requests are being answered; try again later")
        self._answering += 1
        try:
            yield
        finally:
            self._answering -= 1

    async def _rank(self, payload: kserve.InferRequest) -> Ranking:
        """Rank, with every failure as a status and a message."""
        seconds = self.tier.config.request_seconds
        try:
            async with asyncio.timeout(seconds):
                return await self.tier.rank(_arrays(payload), payload.model_version or "")
        except NotServed as error:
            raise grpc_errors.NotFound(str(error)) from None
        except InputError as error:
            raise grpc_errors.InvalidArgument(str(error)) from None
        except TimeoutError:
            raise grpc_errors.DeadlineExceeded(f"not answered within {seconds} seconds") from None
        except VersionMismatch as error:
            log_event("mismatch refused", logging.ERROR, reason=str(error))
            raise grpc_errors.Internal(f"the embedding tier failed: {error}") from None
        except grpc.RpcError as error:
            raise _tables_error(error) from None


def _tables_error(error: grpc.RpcError) -> grpc_errors.GrpcException:
    """What the embedding tier's failure means to the ranker's client."""
    text = f"embedding tier: {error.details()}"
    if error.code() in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED, grpc.StatusCode.CANCELLED):
        return grpc_errors.Unavailable(text)
    if error.code() == grpc.StatusCode.FAILED_PRECONDITION:
        return grpc_errors.FailedPrecondition(text)
    if error.code() == grpc.StatusCode.RESOURCE_EXHAUSTED:
        return grpc_errors.ResourceExhausted(text)
    log_event("look-up failed", logging.ERROR, code=error.code().name, reason=str(error.details()))
    return grpc_errors.Internal(text)


def _arrays(payload: kserve.InferRequest) -> dict[str, np.ndarray]:
    """The request's tensors.

    Raises:
        InputError: Naming the one that is not readable.
    """
    arrays: dict[str, np.ndarray] = {}
    for tensor in payload.inputs:
        if tensor.name in arrays:
            raise InputError(f"input {tensor.name!r} is there twice")
        try:
            array = tensor.as_numpy()
        except Exception as error:
            # KServe's decoding raises whatever struct and NumPy do.
            reason = str(error).splitlines()[0] if str(error) else type(error).__name__
            raise InputError(
                f"input {tensor.name!r}: not {tensor.datatype} of shape {tensor.shape} ({reason})"
            ) from error
        arrays[tensor.name] = array.astype(object) if array.dtype.kind in "SU" else array
    return arrays


def _response(payload: kserve.InferRequest, ranking: Ranking) -> kserve.InferResponse:
    outputs = []
    for name, values in ranking.probabilities.items():
        output = kserve.InferOutput(name, [len(values)], "FP32")
        output.set_data_from_numpy(np.ascontiguousarray(values), binary_data=payload.from_grpc)
        outputs.append(output)
    return kserve.InferResponse(payload.id or "", MODEL, outputs, model_version=ranking.version)


class _Repository(ModelRepository):
    """KServe unloads its models when it is told to stop; requests that still come then are answered all the same."""

    def unload(self, name: str) -> None:
        self.models[name].ready = False


class _DataPlane(DataPlane):
    """Without KServe's question before every request whether the model is ready: here that would ask the other tier."""

    async def get_model(self, name: str) -> kserve.Model:
        return self.get_model_from_registry(name)


class _Extension(ModelRepositoryExtension):
    """Loading `ranker` means to follow the deployment's record; unloading it, to take this server out of service."""

    def __init__(self, model: RankerModel, repository: ModelRepository) -> None:
        super().__init__(repository)
        self._model = model

    async def load(self, model_name: str) -> dict[str, Any]:
        self._check(model_name)
        try:
            await self._model.tier.follow()
        except (InputError, OSError) as error:
            log_event("deployment not followed", logging.ERROR, reason=str(error))
            raise grpc_errors.FailedPrecondition(str(error)) from None
        except grpc.RpcError as error:
            raise grpc_errors.Unavailable(f"embedding tier: {error.details()}") from None
        self._model.ready = True
        return {"name": MODEL, "load": True}

    async def unload(self, model_name: str) -> dict[str, Any]:
        self._check(model_name)
        self._model.ready = False
        return {"name": MODEL, "unload": True}

    def _check(self, name: str) -> None:
        if name != MODEL:
            raise grpc_errors.NotFound(f"model {name[:64]!r}: this tier has {MODEL!r}")


def _grpc_error_as_http(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, grpc_errors.GrpcException)
    return JSONResponse({"error": error.details}, _HTTP_STATUS.get(error.status_code, 500))


def serve(config: RankerTierConfig) -> None:
    """Serve until SIGTERM or SIGINT, then let requests end.

    Raises:
        InputError: If a version of the deployment cannot be loaded.
    """
    log_as_json()
    tier = RankerTier(config)
    tier.load()
    model = RankerModel(tier)
    model_server.args.grpc_max_receive_message_length = config.max_message_bytes
    model_server.args.grpc_max_send_message_length = config.max_message_bytes
    model_server.app.add_exception_handler(grpc_errors.GrpcException, _grpc_error_as_http)
    repository = _Repository()
    server = kserve.ModelServer(
        http_port=config.http_port,
        grpc_port=config.grpc_port,
        registered_models=repository,
        enable_latency_logging=False,
        grace_period=int(config.grace_seconds),
    )
    server.dataplane = _DataPlane(repository)
    server.model_repository_extension = _Extension(model, repository)
    # KServe's own handlers and lines give way to one JSON object a line.
    for name in ("kserve", "kserve.trace", "uvicorn", "uvicorn.access", "uvicorn.error"):
        logger = logging.getLogger(name)
        logger.handlers, logger.propagate = [], True
        logger.setLevel(logging.WARNING)
    log_event("ranker tier ready", port=config.grpc_port, versions=tier.versions)
    server.start([model])
