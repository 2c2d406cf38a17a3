"""Shadow scoring: a share of the answered requests is scored by a second version as well, and the two are compared."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping

import numpy as np

from components.common.deployments import Deployment
from components.serve.observability import (
    SHADOW_ANSWERED,
    SHADOW_DIFFERENCE,
    SHADOW_PREDICTION,
    SHADOWED,
    log_event,
)
from components.version.wire_names import Ranking

_OK, _ERROR, _DROPPED = "OK", "ERROR", "DROPPED"
Tensors = Mapping[str, np.ndarray]


class Shadow:
    """Takes requests when they are answered, and scores them one at a time; no answer waits for it or fails by it."""

    def __init__(self, score: Callable[[str, Tensors], Awaitable[Ranking]], max_waiting: int) -> None:
        """Score with a function of version and tensors; what comes while so many wait is dropped, and counted."""
        self._score = score
        self._waiting: asyncio.Queue[tuple[str, Ranking, Tensors]] = asyncio.Queue(max_waiting)
        self._answering, self._version, self._share = "", "", 0.0
        self._due = 0.0
        self._worker: asyncio.Task[None] | None = None
        self._told: set[str] = set()

    def follow(self, deployment: Deployment) -> None:
        """Shadow as a deployment's record says."""
        version = deployment.other if deployment.shadow_share else ""
        if version != self._version:
            self._told.clear()
        self._answering, self._version, self._share = deployment.current, version, deployment.shadow_share

    def offer(self, answered: Ranking, tensors: Tensors) -> None:
        """Have a request scored in shadow when its turn comes, if its share of them is to be."""
        if not self._version or answered.version != self._answering:
            return
        self._due += self._share
        if self._due < 1.0:
            return
        self._due -= 1.0
        try:
            self._waiting.put_nowait((self._version, answered, tensors))
        except asyncio.QueueFull:
            SHADOWED.labels(self._version, _DROPPED).inc()
            return
        if self._worker is None or self._worker.done():
            self._worker = asyncio.create_task(self._work())

    async def _work(self) -> None:
        """Score what waits; over when nothing does."""
        while not self._waiting.empty():
            version, answered, tensors = self._waiting.get_nowait()
            if version == self._version:
                await self._compare(version, answered, tensors)

    async def _compare(self, version: str, answered: Ranking, tensors: Tensors) -> None:
        try:
            scored = await self._score(version, tensors)
        except Exception as error:
            # Whatever the version does, it concerns nobody but who looks at the figures.
            SHADOWED.labels(version, _ERROR).inc()
            if version not in self._told:
                self._told.add(version)
                reason = f"{type(error).__name__}: {error}"
                log_event("first request that failed in shadow", logging.ERROR, version=version, reason=reason)
            return
        SHADOWED.labels(version, _OK).inc()
        for name, values in scored.probabilities.items():
            if name in answered.probabilities and len(values):
                other = answered.probabilities[name]
                SHADOW_PREDICTION.labels(version, name).observe(float(values.mean()))
                SHADOW_ANSWERED.labels(version, name).observe(float(other.mean()))
                SHADOW_DIFFERENCE.labels(version, name).observe(float(np.abs(values - other).mean()))
