"""One version's ranker, and how many requests it is answering."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np

from components.common.errors import InputError
from components.serve.observability import IN_FLIGHT
from components.version.int4 import finest
from components.version.manifest import ONNX_INPUTS, ONNX_OUTPUT
from components.version.packed_tables import look_up_rows
from components.version.request import RequestContract
from components.version.session import provider_of, start_session
from components.version.version import Version

_TIER = "ranker"


@dataclass
class RankerVersion:
    """One version's ranker.

    Attributes:
        digest: The version.
        contract: What its requests carry.
        run: From the graph's inputs, in order, to probabilities of all objectives, shape (n, objectives).
        columns: Of the served objectives in these.
        provider: What ONNX Runtime runs it on.
        in_flight: Requests that it is answering.
    """

    digest: str
    contract: RequestContract
    run: Callable[[tuple[np.ndarray, ...]], np.ndarray]
    columns: dict[str, int]
    provider: str
    in_flight: int = 0
    idle: asyncio.Event = dataclasses.field(default_factory=asyncio.Event)

    @classmethod
    def load(cls, version: Version, num_threads: int, require_gpu: bool = False) -> RankerVersion:
        """Start a version's session and run it once.

        Raises:
            InputError: If its files are damaged or do not fit each other, or the GPU that it must have cannot be used.
        """
        session = start_session(version.onnx(), version.uri, num_threads, require_gpu)

        def run(inputs: tuple[np.ndarray, ...]) -> np.ndarray:
            return np.asarray(session.run([ONNX_OUTPUT], dict(zip(ONNX_INPUTS, inputs, strict=True)))[0])

        objectives, served = version.manifest.objectives, version.manifest.served
        try:
            probabilities = run(_empty_inputs(version))
        except Exception as error:
            # ONNX Runtime's exceptions have no base of their own.
            raise InputError(f"{version.uri}: its ranker does not run ({str(error).splitlines()[0]})") from error
        if probabilities.shape != (2, len(objectives)) or not set(served) <= set(objectives):
            raise InputError(
                f"{version.uri}: answers {probabilities.shape} for objectives {list(objectives)}; export it again"
            )
        columns = {name: objectives.index(name) for name in served}
        return cls(version.digest, version.contract(), run, columns, provider_of(session))

    @contextmanager
    def answering(self) -> Iterator[None]:
        """Count a request."""
        self.in_flight += 1
        self.idle.clear()
        IN_FLIGHT.labels(_TIER, self.digest).inc()
        try:
            yield
        finally:
            self.in_flight -= 1
            IN_FLIGHT.labels(_TIER, self.digest).dec()
            if not self.in_flight:
                self.idle.set()

    async def drained(self, timeout_seconds: float) -> bool:
        """Wait until it answers no request; whether that came in time."""
        if not self.in_flight:
            return True
        try:
            await asyncio.wait_for(self.idle.wait(), timeout_seconds)
        except TimeoutError:
            return False
        return True


def _empty_inputs(version: Version) -> tuple[np.ndarray, ...]:
    """Rows of zeros of two candidates."""
    features, specs = version.manifest.features, list(version.manifest.tables)
    row_bytes = finest(spec.layout for spec in specs).row_bytes
    look_ups = [
        len(look_up_rows(tables, specs, features)) for tables in (features.served_columns, features.sequence_tables)
    ]
    return (
        np.zeros((2, look_ups[0], row_bytes), dtype=np.uint8),
        np.zeros((2, features.num_dense), dtype=np.float32),
        np.zeros((1, features.sequence.length, look_ups[1], row_bytes), dtype=np.uint8),
        np.ones(1, dtype=np.int64),
        np.zeros(2, dtype=np.int64),
    )
