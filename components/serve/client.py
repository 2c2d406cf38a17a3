"""A client of the ranker tier."""

from __future__ import annotations

import time
from collections.abc import Mapping
from types import TracebackType
from typing import Any, Self

import grpc
import numpy as np

from components.common.errors import InputError
from components.serve.credentials import ClientCredentials
from components.serve.protocol import RANKER_MODEL, channel_options, pb, pb_grpc
from components.serve.tensors import arrays_of, infer_request, request_tensors
from components.version.request import Ranking

_PAUSE_SECONDS = 0.05


class ServerError(InputError):
    """A server's refusal.

    Attributes:
        code: Name of the gRPC status, such as INVALID_ARGUMENT or UNAVAILABLE.
    """

    def __init__(self, address: str, error: grpc.RpcError) -> None:
        """Take what a server at an address answered."""
        super().__init__(f"{address}: {error.code().name}: {error.details()}")
        self.code = str(error.code().name)


class RankerClient:
    """Asks a ranker server for probabilities; may be shared by threads.

    A request changes nothing, so one that met a server which is restarting is sent again until the time-out.
    """

    def __init__(
        self, address: str, timeout_seconds: float = 5.0, credentials: ClientCredentials | None = None
    ) -> None:
        """Connect to `host:port`, when first asked; unencrypted if no credentials are given."""
        self.address, self._timeout_seconds = address, timeout_seconds
        self._channel = (credentials or ClientCredentials()).channel(address, channel_options())
        self._stub = pb_grpc.GRPCInferenceServiceStub(self._channel)

    def rank(self, request: Mapping[str, Any], version: str = "") -> Ranking:
        """Probabilities of a request's candidates.

        Args:
            request: As in a request file: `user`, `candidates`, `actions`.
            version: Its digest; empty for the one that the user is routed to.

        Raises:
            InputError: If the request is not one.
            ServerError: If the server refuses, or cannot be reached within the time-out.
        """
        return self.rank_tensors(request_tensors(request), version)

    def rank_tensors(self, tensors: Mapping[str, np.ndarray], version: str = "") -> Ranking:
        """Ask as `rank` does, with a request's tensors."""
        message = infer_request(RANKER_MODEL, version, tensors)
        try:
            response = self._send(message)
        except grpc.RpcError as error:
            raise ServerError(self.address, error) from error
        if version and response.model_version != version:
            raise InputError(f"{self.address}: answered with version {response.model_version[:12]}, not {version[:12]}")
        return Ranking(response.model_version, arrays_of(response.outputs, response.raw_output_contents))

    def _send(self, message: pb.ModelInferRequest) -> pb.ModelInferResponse:
        deadline, refusal = time.monotonic() + self._timeout_seconds, None
        while True:
            left = deadline - time.monotonic()
            try:
                return self._stub.ModelInfer(message, timeout=max(left, 0.001))
            except grpc.RpcError as error:
                if error.code() == grpc.StatusCode.DEADLINE_EXCEEDED and refusal is not None:
                    # That time ran out says less than why it was needed.
                    raise refusal from None
                if error.code() != grpc.StatusCode.UNAVAILABLE:
                    raise
                refusal = error
                if left < 2 * _PAUSE_SECONDS:
                    raise
                time.sleep(_PAUSE_SECONDS)

    def close(self) -> None:
        """Let the connection go."""
        self._channel.close()

    def __enter__(self) -> Self:
        """A client to be closed at the end of a block."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close it."""
        self.close()
