"""What a client says to its servers, without doing it: both clients, blocking and not, do these steps.

A conversation is a generator: it yields calls and pauses, and gets answers, or gRPC's errors, back.
"""

from __future__ import annotations

import itertools
import math
import random
import time
from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import grpc
import numpy as np

from components.common.errors import InputError
from components.serve.client_connection import addresses_of
from components.serve.client_inputs import FieldError, Inputs, RequestTensors
from components.serve.protocol import RANKER_MODEL, pb
from components.serve.tensors import arrays_of, infer_request
from components.version.wire_names import Ranking

_FIRST_PAUSE, _LONGEST_PAUSE, _AVOID_SECONDS = 0.05, 0.5, 1.0
# A server that stops says CANCELLED to a call that it had not begun.
_PASSING = (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.RESOURCE_EXHAUSTED, grpc.StatusCode.CANCELLED)
# A message that is too large has the same status as a server that is busy, but stays so.
_TOO_LARGE = "larger than max"


class ServerError(InputError):
    """A server's refusal.

    Attributes:
        code: Name of the gRPC status, such as INVALID_ARGUMENT or UNAVAILABLE.
        details: What the server says.
        attempts: How often servers were asked.
    """

    def __init__(self, address: str, error: grpc.RpcError, attempts: int = 1) -> None:
        """Take what a server at an address answered."""
        self.code, self.details, self.attempts = str(error.code().name), str(error.details()), attempts
        asked = f" (asked {attempts} times)" if attempts > 1 else ""
        super().__init__(f"{address}: {self.code}: {self.details}{asked}")


@dataclass(frozen=True)
class Call:
    """Ask the server with a number, within a time."""

    server: int
    method: str
    message: Any
    timeout_seconds: float


@dataclass(frozen=True)
class Pause:
    """Wait."""

    seconds: float


_Result = TypeVar("_Result")
Conversation = Generator[Call | Pause, Any, _Result]


class RankerCalls:
    """What is known of a deployment's rankers, and which of them is asked next; threads may share it."""

    def __init__(self, addresses: str | Sequence[str], timeout_seconds: float, candidates_per_call: int | None) -> None:
        """Take the settings of a client.

        Raises:
            InputError: If one is not possible.
        """
        self.addresses = addresses_of(addresses)
        if not 0 < timeout_seconds < math.inf:
            raise InputError(f"timeout_seconds = {timeout_seconds}: must be a number above 0")
        if candidates_per_call is not None and candidates_per_call < 1:
            raise InputError(f"candidates_per_call = {candidates_per_call}: must be 1 or more")
        self._timeout_seconds = timeout_seconds
        self._most = candidates_per_call or math.inf
        # Clients that start together must not all begin with the first server.
        self._turns = itertools.count(random.randrange(len(self.addresses)))
        self._avoided: dict[int, float] = {}
        # By version that is pinned; under no name, of users as they are routed.
        self._inputs: dict[str, Inputs] = {}
        self._seen: frozenset[str] = frozenset()
        self._limits: dict[str, str] = {}

    def rank(self, request: Mapping[str, Any], version: str, timeout_seconds: float | None) -> Conversation[Ranking]:
        """Rank a request's candidates; see `RankerClient.rank`."""
        deadline = self._deadline(timeout_seconds)
        inputs = self._inputs.get(version)
        known = inputs is not None
        if inputs is None:
            inputs = yield from self._ask_inputs(version, deadline)
        try:
            tensors = inputs.tensors(request)
            ranking = yield from self._rank_all(tensors, version, deadline)
        except (FieldError, ServerError) as error:
            is_gone = isinstance(error, ServerError) and error.code == "NOT_FOUND"
            is_about_columns = isinstance(error, FieldError) or error.code == "INVALID_ARGUMENT"
            if version or not (is_gone or (known and is_about_columns)):
                raise
            # Users may be routed to another version meanwhile.
            before, inputs = inputs, (yield from self._ask_inputs("", deadline))
            if not is_gone and inputs.datatypes == before.datatypes:
                raise
            tensors = inputs.tensors(request)
            ranking = yield from self._rank_all(tensors, "", deadline)
        if version:
            return ranking
        if ranking.version not in self._seen:
            self._seen |= {ranking.version}
            # The next request asks what is taken now.
            self._inputs.pop("", None)
        if not tensors.left_out:
            return ranking
        answered = self._inputs.get(ranking.version) or (yield from self._ask_inputs(ranking.version, deadline))
        if not tensors.left_out & answered.datatypes.keys():
            return ranking
        return (yield from self._rank_all(answered.tensors(request), ranking.version, deadline))

    def rank_tensors(
        self, tensors: Mapping[str, np.ndarray], version: str, timeout_seconds: float | None
    ) -> Conversation[Ranking]:
        """Send tensors as they are, in one call."""
        message = infer_request(RANKER_MODEL, version, tensors)
        return (yield from self._infer(message, self._deadline(timeout_seconds)))

    def _deadline(self, timeout_seconds: float | None) -> float:
        return time.monotonic() + (self._timeout_seconds if timeout_seconds is None else timeout_seconds)

    def _ask_inputs(self, version: str, deadline: float) -> Conversation[Inputs]:
        """What a version takes, or for no version, the one that most users are routed to."""
        stated = yield from self._send("ServerMetadata", pb.ServerMetadataRequest(), deadline)
        limits = dict(text.split("=", 1) for text in stated.extensions if "=" in text)
        asked = pb.ModelMetadataRequest(name=RANKER_MODEL, version=version)
        described = yield from self._send("ModelMetadata", asked, deadline)
        # Servers of an earlier release do not name it.
        digest, tensors = next(iter(described.versions), ""), list(described.inputs)
        ignores = limits.get("ignore_unknown_inputs") == "True"
        if ignores:
            # It wants the next version's columns before users are routed to that.
            for other in described.versions[1:]:
                asked = pb.ModelMetadataRequest(name=RANKER_MODEL, version=other)
                tensors = [*(yield from self._send("ModelMetadata", asked, deadline)).inputs, *tensors]
        inputs = Inputs(digest, tensors, ignores)
        self._limits, self._inputs[version] = limits, inputs
        self._seen |= set(described.versions)
        return inputs

    def _rank_all(self, tensors: RequestTensors, version: str, deadline: float) -> Conversation[Ranking]:
        """Candidates in as few calls as the server's limits allow, all answered by one version."""
        size, first, parts = tensors.num_candidates, 0, list[Ranking]()
        allowed = min(self._most, self._limit("max_candidates"), max(size, 1))
        most = math.ceil(size / math.ceil(size / allowed)) if size else 1
        while first < size or not parts:
            end = min(first + most, size)
            message = infer_request(RANKER_MODEL, version, tensors.slice(first, end))
            if message.ByteSize() > self._limit("max_message_bytes") and most > 1:
                most = math.ceil(most / 2)
                continue
            try:
                parts.append((yield from self._infer(message, deadline)))
            except ServerError as error:
                if most < size:
                    # Servers count rows from the first that they get.
                    error.args = (f"{error} (of candidates {first} to {end - 1})",)
                raise
            version, first = parts[-1].version, end
        if len(parts) == 1:
            return parts[0]
        names = parts[0].probabilities
        return Ranking(version, {name: np.concatenate([part.probabilities[name] for part in parts]) for name in names})

    def _limit(self, name: str) -> float:
        return float(self._limits.get(name, math.inf))

    def _infer(self, message: Any, deadline: float) -> Conversation[Ranking]:
        answer = yield from self._send("ModelInfer", message, deadline)
        asked = message.model_version
        if asked and answer.model_version != asked:
            raise InputError(f"a server answered with version {answer.model_version[:12]}, not {asked[:12]}")
        return Ranking(answer.model_version, arrays_of(answer.outputs, answer.raw_output_contents))

    def _send(self, method: str, message: Any, deadline: float) -> Conversation[Any]:
        """Ask until a server answers: requests change nothing, so a second try is always safe."""
        refusal: ServerError | None = None
        for attempt in itertools.count(1):
            server = self._next_server()
            try:
                answer = yield Call(server, method, message, max(deadline - time.monotonic(), 0.001))
                self._avoided.pop(server, None)
                return answer
            except grpc.RpcError as error:
                if error.code() == grpc.StatusCode.DEADLINE_EXCEEDED and refusal is not None:
                    # That time ran out says less than why it was needed.
                    raise refusal from None
                refusal = ServerError(self.addresses[server], error, attempt)
                if error.code() not in _PASSING or _TOO_LARGE in refusal.details:
                    raise refusal from error
                self._avoided[server] = time.monotonic() + _AVOID_SECONDS
            # Another server may do at once what this one could not.
            again = attempt - len(self.addresses)
            pause = random.uniform(0.5, 1.0) * min(_FIRST_PAUSE * 2.0 ** min(again, 10), _LONGEST_PAUSE)
            pause = pause if again >= 0 else 0.0
            if time.monotonic() + pause >= deadline:
                raise refusal
            if pause:
                yield Pause(pause)
        raise AssertionError("unreachable")

    def _next_server(self) -> int:
        """In turn, but rather one that did not just refuse."""
        turn, number, now = next(self._turns), len(self.addresses), time.monotonic()
        order = [(turn + place) % number for place in range(number)]
        return min(order, key=lambda server: max(self._avoided.get(server, 0.0) - now, 0.0))
