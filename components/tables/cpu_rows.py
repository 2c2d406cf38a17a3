"""Look-ups and lazy Adam's whole step on a CPU; all threads are of torch's own pool, where both use OpenMP."""

from __future__ import annotations

from collections.abc import Sequence

import numba
import numpy as np
import torch
from torch import Tensor

from components.tables.config import OptimizerConfig
from components.tables.row_frequencies import RowFrequencies
from components.tables.row_kernels import copy_rows, count_rows, sum_rows, update_rows
from components.tables.rows import RowGradients

_MOST_PARTS = 8
_SAMPLE = 256
# The golden ratio's part of 2^32: multiples of it are spread evenly whatever the period of what they are taken from.
_STRIDE = 2654435769


def look_up(weight: Tensor, rows: Tensor) -> Tensor:
    """Rows of a weight, (m,) to (m, dim): `index_select`, but memory is asked for them ahead.

    Raises:
        IndexError: If the weight does not have them.
    """
    vectors = torch.empty(len(rows), weight.shape[1])
    if copy_rows(weight.detach().numpy(), rows.numpy(), vectors.numpy(), _use_threads()):
        raise IndexError(f"rows {int(rows.min())} to {int(rows.max())} are asked of a weight of {len(weight)} rows")
    return vectors


def _use_threads() -> int:
    """As many as torch has, but no more than keep memory busy."""
    number = min(torch.get_num_threads(), numba.config.NUMBA_NUM_THREADS, _MOST_PARTS)  # type: ignore[attr-defined]
    numba.set_num_threads(number)
    return number


class CpuRows:
    """Updates rows of a weight in memory."""

    def __init__(self, weight: Tensor, state: tuple[Tensor, Tensor, Tensor], config: OptimizerConfig) -> None:
        """Update a weight, and with it the moments and each row's steps (of no rows, if these are not kept)."""
        self._state = [tensor.detach().numpy() for tensor in (weight, *state)]
        self._config, self._places = config, np.zeros(len(weight), dtype=np.int32)
        self._found, self._distinct = np.zeros(0, dtype=np.int64), np.zeros((0, 0), dtype=np.int64)

    def step(self, parts: Sequence[RowGradients], steps: int, frequencies: RowFrequencies | None) -> None:
        """Update from what one batch asks; `steps` counts this one."""
        self._make_buffers(sum(len(part.rows) for part in parts))
        bounds = self._bounds(max((part.rows for part in parts), key=len).numpy())
        for part in parts:
            asked = (values.contiguous().numpy() for values in part)
            sum_rows(*asked, bounds, self._places, self._found, self._distinct, self._totals, self._sums)
        adaptive, scale = self._config.frequency_adaptive, np.zeros(0, dtype=np.float32)
        if frequencies is not None:
            self._count(frequencies)
            scale = scale if adaptive is None else frequencies.scale(adaptive.scaling).numpy()
        self._update(steps, scale)

    def _count(self, frequencies: RowFrequencies) -> None:
        adaptive, ends = self._config.frequency_adaptive, frequencies.ends
        adds = adaptive is None or adaptive.counts == "accumulated"
        largest = np.zeros((len(self._found), len(ends)), dtype=np.int64)
        bits = frequencies.all.numpy()
        count_rows(self._found, self._distinct, self._totals, adds, bits, ends, largest, self._tables)
        if adds:
            frequencies.raise_largest(torch.from_numpy(largest.max(axis=0)))

    def _update(self, steps: int, scale: np.ndarray) -> None:
        config, adaptive = self._config, self._config.frequency_adaptive
        corrections = [np.float32(1 / (1 - beta**steps)) for beta in config.betas]
        update_rows(
            *self._state, self._found, self._distinct, self._totals, self._tables, self._sums, scale,
            adaptive is not None and adaptive.scaling == "log",
            adaptive is not None and adaptive.apply_to == "gradient",
            np.float32(config.learning_rate * config.table_multiplier), *corrections, *config.betas,
            np.float32(config.eps),
        )  # fmt: skip

    def _make_buffers(self, num_rows: int) -> None:
        """Room for what a batch asks."""
        parts = _use_threads()
        if parts != len(self._found) or num_rows > self._distinct.shape[1]:
            shape = (parts, max(num_rows, 1))
            # Memory is taken where it is written to, by as many as there are different rows.
            self._distinct, self._totals = np.empty(shape, dtype=np.int64), np.empty(shape, dtype=np.int64)
            self._tables = np.empty(shape, dtype=np.int32)
            self._sums = np.empty((*shape, self._state[0].shape[1]), dtype=np.float32)
        self._found = np.zeros(parts, dtype=np.int64)

    def _bounds(self, rows: np.ndarray) -> np.ndarray:
        """Ranges of the weight's rows with about equally many look-ups."""
        parts = len(self._found)
        bounds = np.zeros(parts + 1, dtype=np.int64)
        bounds[-1] = len(self._places)
        if parts > 1 and len(rows):
            sample = np.sort(rows[np.arange(_SAMPLE) * _STRIDE % 2**32 % len(rows)])
            bounds[1:-1] = sample[_SAMPLE * np.arange(1, parts) // parts]
        return bounds
