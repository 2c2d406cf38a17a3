"""How the serving benchmarks measure and print; one figure a line."""

from __future__ import annotations

import random
import statistics
import time
from collections.abc import Callable


def say(name: str, value: float, digits: int = 3) -> None:
    """Print one figure."""
    print(f"{name}: {value:.{digits}f}", flush=True)


def median_ms(times: list[float]) -> float:
    """In milliseconds."""
    return statistics.median(times) * 1e3


def interleaved(variants: dict[str, Callable[[], object]], seconds: float) -> dict[str, list[float]]:
    """Seconds of each call, the variants taking turns in an order that changes."""
    times: dict[str, list[float]] = {name: [] for name in variants}
    for call in variants.values():
        call()
    order, end, draw = list(variants), time.monotonic() + seconds, random.Random(0)
    while time.monotonic() < end:
        draw.shuffle(order)
        for name in order:
            started = time.perf_counter()
            variants[name]()
            times[name].append(time.perf_counter() - started)
    return times
