"""The ranker tier as a model of KServe: requests decoded, every failure a status and a message."""

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
from grpc_interceptor import exceptions as grpc_errors

from components.common.errors import InputError
from components.serve.deadline import ending_within, seconds_left
from components.serve.observability import REQUEST_SECONDS, REQUESTS, log_event
from components.serve.protocol import RANKER_MODEL
from components.serve.ranker_tier import NotServed, RankerTier
from components.serve.table_source import VersionMismatch
from components.serve.tensors import array_of, shortened, texts_array
from components.version.wire_names import VALID_SUFFIX, Ranking

_TIER = "ranker"
OTHER_PROTOCOL = "send an inference request of the Open Inference Protocol v2"
_LATE = "not answered within the caller's time-out or the server's request_seconds"
_JSON_TYPES = {
    "INT64": (int,),
    "FP32": (int, float),
    "FP64": (int, float),
    "BOOL": (bool,),
    "BYTES": (str, bytes),
}
_DTYPES = {"INT64": np.int64, "FP32": np.float64, "FP64": np.float64, "BOOL": np.bool_}


class RankerModel(kserve.Model):
    """The protocol around a tier: every version answers under one name, `model_version` chooses among them."""

    def __init__(self, tier: RankerTier) -> None:
        """Answer for a tier that has loaded its versions."""
        super().__init__(RANKER_MODEL)
        self.tier = tier
        self.ready = True
        self.serving = False
        self._answering = 0

    async def healthy(self) -> bool:
        """Whether every version that may be asked has its ranker and its tables, and the server is open and stays."""
        return self.ready and self.serving and await self.tier.is_ready()

    def versions(self, version: str) -> list[str]:
        """The version that is described when one is asked for, or none, and then the others that are loaded.

        Raises:
            NotFound: If that version is not served.
        """
        try:
            first = self.tier.version(version).digest
        except NotServed as error:
            raise grpc_errors.NotFound(shortened(str(error))) from None
        return [first, *(digest for digest in self.tier.versions if digest != first)]

    def get_input_types(self, version: str = "") -> list[dict[str, Any]]:
        """The inputs of a version, or of the one that most users are routed to."""
        fields = self.tier.version(version).contract.fields.values()
        lengths = {field.sized_by: "INT64" for field in fields if field.is_list}
        on_user = {field.name for field in fields if field.part == "user"}
        datatypes = {field.name: field.datatype for field in fields} | lengths
        return [
            {"name": name, "datatype": datatype, "shape": [1 if name in on_user else -1]}
            for name, datatype in datatypes.items()
        ]

    def get_output_types(self, version: str = "") -> list[dict[str, Any]]:
        """A probability a candidate for each objective that the version answers."""
        return [{"name": name, "datatype": "FP32", "shape": [-1]} for name in self.tier.version(version).columns]

    async def predict(
        self,
        payload: kserve.InferRequest,
        headers: dict[str, str] | None = None,
        response_headers: dict[str, str] | None = None,
    ) -> kserve.InferResponse:
        """Answer one request."""
        if not isinstance(payload, kserve.InferRequest):
            raise grpc_errors.InvalidArgument(OTHER_PROTOCOL)
        started, code, version = time.perf_counter(), "OK", "unknown"
        try:
            with ending_within(self.tier.config.request_seconds), _as_status(self.tier.config.embedding_address):
                async with asyncio.timeout(seconds_left()):
                    tensors = await self.tier.run(lambda: _arrays(payload))
                    chosen = self.tier.choose(_version_of(payload), tensors)
                    version = chosen.digest
                    ranking = await self.tier.answer(chosen, tensors)
            REQUEST_SECONDS.labels(_TIER, version).observe(time.perf_counter() - started)
            response = _response(payload, ranking)
            self.tier.shadow.offer(ranking, tensors)
            return response
        except grpc_errors.GrpcException as error:
            code = error.status_code.name
            raise
        except asyncio.CancelledError:
            code = "CANCELLED"
            raise
        finally:
            REQUESTS.labels(_TIER, version, code).inc()

    @contextmanager
    def admitted(self) -> Iterator[None]:
        """Give a request of either protocol one of the places, before it takes memory.

        Raises:
            ResourceExhausted: If all are taken: it is refused instead of letting all of them wait.
        """
        limit = self.tier.config.max_requests
        if self._answering >= limit:
            REQUESTS.labels(_TIER, "unknown", "RESOURCE_EXHAUSTED").inc()
            raise grpc_errors.ResourceExhausted(f"{limit} requests are being answered; try again later")
        self._answering += 1
        try:
            yield
        finally:
            self._answering -= 1


@contextmanager
def _as_status(embedding_address: str) -> Iterator[None]:
    """Every failure as a status and a message."""
    try:
        yield
    except NotServed as error:
        raise grpc_errors.NotFound(shortened(str(error))) from None
    except InputError as error:
        raise grpc_errors.InvalidArgument(shortened(str(error))) from None
    except TimeoutError:
        raise grpc_errors.DeadlineExceeded(_LATE) from None
    except VersionMismatch as error:
        log_event("mismatch refused", logging.ERROR, reason=str(error))
        raise grpc_errors.Internal(f"the embedding tier failed: {error}") from None
    except grpc.RpcError as error:
        raise _tables_error(embedding_address, error) from None
    except Exception:
        logging.getLogger(__name__).exception("request failed")
        raise grpc_errors.Internal("the request failed; the server's log says why") from None


def _tables_error(address: str, error: grpc.RpcError) -> grpc_errors.GrpcException:
    """What the embedding tier's failure means to the ranker's client."""
    text = f"embedding tier {address}: {error.details()}"
    if error.code() == grpc.StatusCode.DEADLINE_EXCEEDED and not seconds_left():
        return grpc_errors.DeadlineExceeded(_LATE)
    if error.code() in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED, grpc.StatusCode.CANCELLED):
        return grpc_errors.Unavailable(text)
    if error.code() == grpc.StatusCode.FAILED_PRECONDITION:
        return grpc_errors.FailedPrecondition(text)
    if error.code() == grpc.StatusCode.RESOURCE_EXHAUSTED:
        return grpc_errors.ResourceExhausted(text)
    log_event("look-up failed", logging.ERROR, code=error.code().name, reason=str(error.details()))
    return grpc_errors.Internal(text)


def _version_of(payload: kserve.InferRequest) -> str:
    """The version that a request pins: `model_version`, or where REST has none, the parameter `version`."""
    pinned = payload.model_version or (payload.parameters or {}).get("version", "")
    return str(getattr(pinned, "string_param", pinned))


def _arrays(payload: kserve.InferRequest) -> dict[str, np.ndarray]:
    """The request's tensors.

    Raises:
        InputError: Naming the one that is not readable.
    """
    arrays: dict[str, np.ndarray] = {}
    for tensor in payload.inputs:
        if tensor.name in arrays:
            raise InputError(f"input {tensor.name!r} is there twice")
        # KServe's own decoding casts text to numbers, and loops over contents that no shape asks for.
        raw = tensor._raw_data
        if raw is not None:
            arrays[tensor.name] = array_of(tensor.name, tensor.datatype, list(tensor.shape), raw)
        else:
            arrays[tensor.name] = _listed(tensor)
    return arrays


def _listed(tensor: kserve.InferInput) -> np.ndarray:
    """An array of values that came as a list, in JSON or typed contents."""
    kinds, values = _JSON_TYPES.get(tensor.datatype, ()), tensor.data
    if not isinstance(values, list) or list(tensor.shape) != [len(values)]:
        raise InputError(f"input {tensor.name!r}: its data must be a list as long as its shape {tensor.shape} says")
    for value in values:
        if type(value) not in kinds:
            raise InputError(
                f"input {tensor.name!r} holds {str(value)[:40]!r}, which is no {tensor.datatype}; a value that is "
                f"absent is marked by a BOOL tensor {tensor.name + VALID_SUFFIX!r}"
            )
    if tensor.datatype == "BYTES":
        return texts_array(values, f"input {tensor.name!r}")
    try:
        return np.array(values, dtype=_DTYPES[tensor.datatype])
    except OverflowError as error:
        raise InputError(f"input {tensor.name!r} holds a number that is no {tensor.datatype}") from error


def _response(payload: kserve.InferRequest, ranking: Ranking) -> kserve.InferResponse:
    outputs = []
    for name, values in ranking.probabilities.items():
        output = kserve.InferOutput(name, [len(values)], "FP32")
        output.set_data_from_numpy(np.ascontiguousarray(values), binary_data=payload.from_grpc)
        outputs.append(output)
    return kserve.InferResponse(payload.id or "", RANKER_MODEL, outputs, model_version=ranking.version)
