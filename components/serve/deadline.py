"""When the request that is being answered must have its answer: what is left of it is passed on to the look-up."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

_ENDS_AT: ContextVar[float] = ContextVar("ends_at", default=math.inf)


@contextmanager
def ending_within(seconds: float | None) -> Iterator[None]:
    """Answer a request within a time, or an earlier end that it has already; None is no end."""
    own = math.inf if seconds is None else time.monotonic() + seconds
    before = _ENDS_AT.set(min(_ENDS_AT.get(), own))
    try:
        yield
    finally:
        _ENDS_AT.reset(before)


def seconds_left() -> float:
    """Until the request's end; infinite if it has none."""
    return max(_ENDS_AT.get() - time.monotonic(), 0.0)
