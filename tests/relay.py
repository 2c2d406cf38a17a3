"""A server in this process before a real one, which fails as it is told: what only the network does otherwise."""

from __future__ import annotations

from collections.abc import Callable
from concurrent import futures
from typing import Any, Self

import grpc
from kserve.protocol.grpc import grpc_predict_v2_pb2_grpc as pb_grpc


class Relay(pb_grpc.GRPCInferenceServiceServicer):
    """Passes calls on.

    Attributes:
        refusals: What the next requests get instead, by their statuses.
        change: Applied to each answer, with the method, the call and the answer.
        seen: Of each call, the method, the message and the metadata.
    """

    def __init__(self, target: pb_grpc.GRPCInferenceServiceStub, credentials: Any = None) -> None:
        self.refusals: list[grpc.StatusCode] = []
        self.change: Callable[[str, Any, Any], Any] = lambda method, request, answer: answer
        self.seen: list[tuple[str, Any, dict[str, str]]] = []
        self._target, self._server = target, grpc.server(futures.ThreadPoolExecutor(4))
        pb_grpc.add_GRPCInferenceServiceServicer_to_server(self, self._server)
        port = "localhost:0"
        number = (
            self._server.add_secure_port(port, credentials) if credentials else self._server.add_insecure_port(port)
        )
        self.address = f"localhost:{number}"

    def asked(self, method: str) -> int:
        """How often a method was called."""
        return [name for name, *_ in self.seen].count(method)

    def _pass_on(self, method: str, request: Any, context: grpc.ServicerContext) -> Any:
        self.seen.append((method, request, dict(context.invocation_metadata())))
        if method == "ModelInfer" and self.refusals:
            context.abort(self.refusals.pop(0), "refused by the relay")
        try:
            answer = getattr(self._target, method)(request, timeout=context.time_remaining())
        except grpc.RpcError as error:
            context.abort(error.code(), error.details())
        return self.change(method, request, answer)

    def ModelInfer(self, request, context):
        return self._pass_on("ModelInfer", request, context)

    def ModelMetadata(self, request, context):
        return self._pass_on("ModelMetadata", request, context)

    def ServerMetadata(self, request, context):
        return self._pass_on("ServerMetadata", request, context)

    def stop(self, grace_seconds: float = 0.0) -> None:
        """Take no more calls; those that are being answered have some time."""
        self._server.stop(grace_seconds)

    def __enter__(self) -> Self:
        self._server.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()
