"""A client of the ranker tier."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Any, Self

import grpc
import numpy as np

from components.serve.client_calls import Call, Conversation, RankerCalls, ServerError
from components.serve.client_connection import Connection, callables_of
from components.version.wire_names import Ranking

__all__ = ["RankerClient", "ServerError"]


class RankerClient:
    """Asks ranker servers for probabilities; may be shared by threads.

    Servers are asked in turn. A request changes nothing, so one that met a server which is gone or busy is sent again,
    to another if there is one, until the time-out.
    """

    def __init__(
        self,
        addresses: str | Sequence[str],
        timeout_seconds: float = 5.0,
        connection: Connection | None = None,
        candidates_per_call: int | None = None,
    ) -> None:
        """Connect, when first asked.

        Args:
            addresses: `host:port` of each server's gRPC port, with commas or as a list.
            timeout_seconds: Of a request as a whole, with all calls that it takes.
            connection: TLS and tokens; neither by default.
            candidates_per_call: At most, where fewer than the servers allow are wanted.

        Raises:
            InputError: Naming the argument that is not possible.
        """
        self._calls = RankerCalls(addresses, timeout_seconds, candidates_per_call)
        self._connection = connection or Connection()
        self._channels = [self._connection.channel(grpc, address) for address in self._calls.addresses]
        self._methods = [callables_of(channel) for channel in self._channels]

    @property
    def addresses(self) -> tuple[str, ...]:
        """Of its servers."""
        return self._calls.addresses

    def rank(self, request: Mapping[str, Any], version: str = "", timeout_seconds: float | None = None) -> Ranking:
        """Probabilities of a request's candidates, in their order.

        More candidates than the servers take in one call are sent in several, which one version answers.

        Args:
            request: `user`, a mapping; `candidates` and `actions`, each a list of mappings, a mapping of columns, a
                pandas DataFrame or an Arrow table.
            version: Its digest; empty for the one that the user is routed to.
            timeout_seconds: In place of the client's.

        Raises:
            FieldError: If a column or a value is not what the version takes.
            InputError: If the request is not one.
            ServerError: If the server refuses, or none can be reached within the time-out.
        """
        return self._hold(self._calls.rank(request, version, timeout_seconds))

    def rank_tensors(
        self, tensors: Mapping[str, np.ndarray], version: str = "", timeout_seconds: float | None = None
    ) -> Ranking:
        """Ask as `rank` does, with a request's tensors as they are, in one call."""
        return self._hold(self._calls.rank_tensors(tensors, version, timeout_seconds))

    def _hold(self, conversation: Conversation[Ranking]) -> Ranking:
        """Do what a conversation says until it has its result."""
        try:
            step = next(conversation)
            while True:
                if not isinstance(step, Call):
                    time.sleep(step.seconds)
                    step = next(conversation)
                    continue
                try:
                    answer = self._methods[step.server][step.method](
                        step.message, timeout=step.timeout_seconds, metadata=self._connection.metadata()
                    )
                except grpc.RpcError as error:
                    step = conversation.throw(error)
                else:
                    step = conversation.send(answer)
        except StopIteration as ended:
            result: Ranking = ended.value
            return result

    def close(self) -> None:
        """Let the connections go."""
        for channel in self._channels:
            channel.close()

    def __enter__(self) -> Self:
        """A client to be closed at the end of a block."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close it."""
        self.close()
