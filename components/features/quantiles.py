"""Numbers as ids: each falls into one of some ranges that hold about equally many examples of the batch."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from pydantic import Field

from components.common.config import Config
from components.features.hashing import added_up

# Of a float32's 32 bits; with 24 of them, neighbours differ by 0.003%, and there are few enough to count.
_LEFT_OUT_BITS = np.uint32(8)
_SIGN = np.uint32(2**31)
# What stands for a number that is absent; all others are above it.
_ABSENT = 0


class Quantiles(Config):
    """A table with a row for each range of a number, and one for where it is absent.

    The ranges are learned from the batch, and then belong to the model.
    """

    number: str = Field(description="one of the data set's context_numbers")
    buckets: int = Field(32, ge=2, le=4096, description="ranges; fewer where many examples have the same number")

    @property
    def num_rows(self) -> int:
        """Rows of the table."""
        return self.buckets + 1

    def learned(self, state: dict[str, np.ndarray] | None = None) -> LearnedQuantiles:
        """Begin without ranges, or with those of `state`."""
        return LearnedQuantiles(self, state)

    def index(self, keys: np.ndarray, slots: np.ndarray) -> QuantileIndex:
        """The ranges that begin at `keys`."""
        return QuantileIndex(keys, slots)


def number_ids(numbers: np.ndarray) -> np.ndarray:
    """Ids in the order of the numbers, from 1 on, and 0 where one is NaN.

    Args:
        numbers: Within what a 32-bit float holds, or NaN; float64, shape (n,).

    Returns:
        int64, shape (n,), at most 2^24.
    """
    # Adding 0 makes -0 of a sign of its own into 0.
    bits = (numbers.astype(np.float32) + np.float32(0)).view(np.uint32)
    # As integers, floats above 0 are in order, those below 0 in reverse.
    ordered = np.where(bits & _SIGN, ~bits, bits | _SIGN)
    return np.where(np.isnan(numbers), _ABSENT, (ordered >> _LEFT_OUT_BITS).astype(np.int64) + 1)


@dataclass(frozen=True)
class QuantileIndex:
    """Which range each number is in.

    Attributes:
        keys: The id that each range but the first begins with, ascending; int64, shape (at most buckets - 1,).
        slots: Empty, int32.
    """

    keys: np.ndarray
    slots: np.ndarray

    def rows(self, ids: np.ndarray) -> np.ndarray:
        """0 of absent numbers, else one more than the range's place; int64, in the shape of `number_ids`."""
        return np.where(ids == _ABSENT, 0, 1 + np.searchsorted(self.keys, ids, side="right"))


class LearnedQuantiles:
    """The ranges of one number as training knows them.

    Attributes:
        bounds: `QuantileIndex.keys`.
    """

    def __init__(self, quantiles: Quantiles, state: dict[str, np.ndarray] | None = None) -> None:
        """Begin without ranges, or with those of `state`, which stay."""
        self._quantiles = quantiles
        self.bounds = np.array((state or {}).get("bounds", ()), dtype=np.int64)
        self._is_learned = len(self.bounds) > 0
        self._seen = np.zeros(0, dtype=np.int64), np.zeros(0, dtype=np.int64)

    @property
    def state(self) -> dict[str, np.ndarray]:
        """The ranges."""
        return {"bounds": self.bounds}

    @property
    def num_known(self) -> int:
        """Ranges."""
        return len(self.bounds) + 1 if len(self.bounds) else 0

    @property
    def index(self) -> QuantileIndex:
        """Which range each number is in."""
        return QuantileIndex(self.bounds, np.zeros(0, dtype=np.int32))

    def update(self, ids: np.ndarray, counts: np.ndarray, day: int) -> np.ndarray:
        """Take in a day of the batch; later days leave the ranges as they are. No row is made new."""
        is_there = ids != _ABSENT
        if not self._is_learned and is_there.any():
            together = (ids[is_there], counts[is_there]), self._seen
            self._seen = added_up(*map(np.concatenate, zip(*together, strict=True)))
            self.bounds = _bounds(*self._seen, self._quantiles.buckets)
        return np.zeros(0, dtype=np.int64)

    def note(self, ids: np.ndarray, counts: np.ndarray, day: int) -> None:
        """Nothing is counted beside the batch."""


def _bounds(ids: np.ndarray, counts: np.ndarray, buckets: int) -> np.ndarray:
    """Where ranges but the first begin: `buckets` - 1 places at most."""
    if len(ids) == 1:
        return ids
    up_to = np.cumsum(counts)
    # In whole numbers, so that the same counts give the same ranges everywhere.
    ranks = np.arange(1, buckets) * int(up_to[-1]) // buckets
    places, fallen = np.unique(np.searchsorted(up_to, ranks, side="right"), return_counts=True)
    # A number that fills ranges gets one of its own, and nothing comes before the first.
    filling = places[(fallen > 1) | (places == 0)]
    places = np.union1d(places[places > 0], filling + 1)
    return ids[places[places < len(ids)]]
