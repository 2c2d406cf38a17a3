"""The client of the ranker tier for asyncio."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Any, Self

import grpc
import numpy as np

from components.serve.client_calls import Call, Conversation, RankerCalls
from components.serve.client_connection import Connection, callables_of
from components.version.wire_names import Ranking


class AsyncRankerClient:
    """`RankerClient` for one event loop; tasks may share it."""

    def __init__(
        self,
        addresses: str | Sequence[str],
        timeout_seconds: float = 5.0,
        connection: Connection | None = None,
        candidates_per_call: int | None = None,
    ) -> None:
        """Take the same settings; connections are made in the loop that first asks."""
        self._calls = RankerCalls(addresses, timeout_seconds, candidates_per_call)
        self._connection = connection or Connection()
        self._channels: list[grpc.aio.Channel] = []
        self._methods: list[dict[str, Any]] = []

    @property
    def addresses(self) -> tuple[str, ...]:
        """Of its servers."""
        return self._calls.addresses

    async def rank(
        self, request: Mapping[str, Any], version: str = "", timeout_seconds: float | None = None
    ) -> Ranking:
        """As `RankerClient.rank`."""
        return await self._hold(self._calls.rank(request, version, timeout_seconds))

    async def rank_tensors(
        self, tensors: Mapping[str, np.ndarray], version: str = "", timeout_seconds: float | None = None
    ) -> Ranking:
        """As `RankerClient.rank_tensors`."""
        return await self._hold(self._calls.rank_tensors(tensors, version, timeout_seconds))

    async def _hold(self, conversation: Conversation[Ranking]) -> Ranking:
        if not self._channels:
            self._channels = [self._connection.channel(grpc.aio, address) for address in self.addresses]
            self._methods = [callables_of(channel) for channel in self._channels]
        try:
            step = next(conversation)
            while True:
                if not isinstance(step, Call):
                    await asyncio.sleep(step.seconds)
                    step = next(conversation)
                    continue
                try:
                    answer = await self._methods[step.server][step.method](
                        step.message, timeout=step.timeout_seconds, metadata=self._connection.metadata()
                    )
                except grpc.RpcError as error:
                    step = conversation.throw(error)
                else:
                    step = conversation.send(answer)
        except StopIteration as ended:
            result: Ranking = ended.value
            return result

    async def close(self) -> None:
        """Let the connections go."""
        channels, self._channels = self._channels, []
        for channel in channels:
            await channel.close()

    async def __aenter__(self) -> Self:
        """A client to be closed at the end of a block."""
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close it."""
        await self.close()
