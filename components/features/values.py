"""What a value may be, in logs as in requests: everything behind them computes in 32-bit floating point."""

from __future__ import annotations

import numpy as np

LARGEST_NUMBER = float(np.finfo(np.float32).max)


def is_number(values: np.ndarray) -> np.ndarray:
    """Whether numbers are finite, and no larger than a 32-bit float holds; bool, in the shape of `values`."""
    return np.abs(values) <= LARGEST_NUMBER
