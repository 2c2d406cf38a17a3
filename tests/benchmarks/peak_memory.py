"""Memory of a benchmark's process."""

from __future__ import annotations

import resource


def peak_mb() -> float:
    """The most that this process has held, in units of 10^6 bytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e6
