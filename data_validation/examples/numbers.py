"""Mergeable counts, moments and quantiles of numbers."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from fractions import Fraction

import numpy as np

# 19 of a float32's 32 bits remain: sign, exponent, 10 bits of mantissa; neighbours are 0.1% apart.
_DROPPED_BITS = 13
_HALF = np.int32(1 << (_DROPPED_BITS - 1))


@dataclass
class Counts:
    """How many values of each kind there are, by an integer code; codes ascend.

    Attributes:
        codes: int64, shape (distinct,).
        counts: int64, shape (distinct,).
    """

    codes: np.ndarray = field(default_factory=lambda: np.zeros(0, dtype=np.int64))
    counts: np.ndarray = field(default_factory=lambda: np.zeros(0, dtype=np.int64))

    @classmethod
    def of(cls, codes: np.ndarray) -> Counts:
        """Count small integers, int64, shape (n,)."""
        if not len(codes):
            return cls()
        lowest = int(codes.min())
        counts = np.bincount(codes - lowest)
        present = np.flatnonzero(counts)
        return cls(present + lowest, counts[present])

    def merge(self, other: Counts) -> Counts:
        """The sum of both."""
        codes, inverse = np.unique(np.concatenate([self.codes, other.codes]), return_inverse=True)
        summed = np.zeros(len(codes), dtype=np.int64)
        np.add.at(summed, inverse, np.concatenate([self.counts, other.counts]))
        return Counts(codes, summed)

    def quantiles(self, shares: np.ndarray) -> np.ndarray:
        """The code of value number floor(share * n), counted from 0 in order; int64; at least one value is needed."""
        running = np.cumsum(self.counts)
        wanted = np.minimum(np.floor(shares * running[-1]), running[-1] - 1)
        return self.codes[np.searchsorted(running, wanted, side="right")]


def float_codes(values: np.ndarray) -> np.ndarray:
    """Integers in the order of the floats, rounded to 0.05%; finite float32 to int32, shape (n,)."""
    magnitude = ((values.view(np.int32) & np.int32(0x7FFFFFFF)) + _HALF) >> _DROPPED_BITS
    return np.where(values < 0, -magnitude, magnitude)


def float_values(codes: np.ndarray) -> np.ndarray:
    """The floats that codes stand for, float64, shape (n,)."""
    magnitude = (np.abs(codes).astype(np.int32) << _DROPPED_BITS).view(np.float32).astype(np.float64)
    return np.where(codes < 0, -magnitude, magnitude)


@dataclass
class Numbers:
    """Moments and quantiles of numeric values.

    Sums are exact rational numbers: adding them up in any order gives the same, without cancellation.

    Attributes:
        num_values: All values, NaN among them.
        num_nan: NaN.
        num_infinite: Positive or negative infinity; they count for the extremes only.
        num_zeros: Zeros.
        total: Sum of the finite values.
        squares: Sum of their squares.
        lowest: Smallest value.
        highest: Largest value.
        histogram: Finite values by `float_codes`.
    """

    num_values: int = 0
    num_nan: int = 0
    num_infinite: int = 0
    num_zeros: int = 0
    total: Fraction = Fraction(0)
    squares: Fraction = Fraction(0)
    lowest: float = float("inf")
    highest: float = float("-inf")
    histogram: Counts = field(default_factory=Counts)

    @classmethod
    def of(cls, values: np.ndarray) -> Numbers:
        """Describe numbers of any kind, shape (n,)."""
        numbers = cls(num_values=len(values))
        if not len(values):
            return numbers
        lowest, highest = float(values.min()), float(values.max())
        if not np.isfinite(lowest + highest):
            numbers.num_nan = int(np.isnan(values).sum())
            known = values[~np.isnan(values)]
            if len(known):
                numbers.lowest, numbers.highest = float(known.min()), float(known.max())
            values = known[np.isfinite(known)]
            numbers.num_infinite = len(known) - len(values)
        else:
            numbers.lowest, numbers.highest = lowest, highest
        if len(values):
            numbers.num_zeros = len(values) - int(np.count_nonzero(values))
            numbers._add_moments(values)
            with np.errstate(over="ignore"):
                numbers.histogram = Counts.of(float_codes(values.astype(np.float32, copy=False)))
        return numbers

    def _add_moments(self, values: np.ndarray) -> None:
        # Scaled by a power of two, which is exact, so that squares of the largest floats do not overflow.
        scaled = values.astype(np.float64)
        exponent = int(np.frexp(np.abs(scaled).max())[1])
        exponent = exponent if exponent > 300 else 0
        scaled, scale = np.ldexp(scaled, -exponent), 2**exponent
        mean = Fraction(float(scaled.mean()))
        apart = scaled - float(mean)
        total = len(values) * mean + Fraction(float(apart.sum()))
        self.total = scale * total
        self.squares = scale**2 * (Fraction(float(apart @ apart)) + 2 * mean * total - len(values) * mean**2)

    def merge(self, other: Numbers) -> Numbers:
        """The statistics of both together."""
        return Numbers(
            self.num_values + other.num_values,
            self.num_nan + other.num_nan,
            self.num_infinite + other.num_infinite,
            self.num_zeros + other.num_zeros,
            self.total + other.total,
            self.squares + other.squares,
            min(self.lowest, other.lowest),
            max(self.highest, other.highest),
            self.histogram.merge(other.histogram),
        )

    @property
    def num_finite(self) -> int:
        """Values that the moments are of."""
        return self.num_values - self.num_nan - self.num_infinite

    @property
    def mean(self) -> float:
        """Mean of the finite values."""
        return float(self.total / self.num_finite) if self.num_finite else 0.0

    @property
    def std_dev(self) -> float:
        """Population standard deviation of the finite values."""
        if not self.num_finite:
            return 0.0
        variance = max(self.squares / self.num_finite - (self.total / self.num_finite) ** 2, Fraction(0))
        return math.isqrt(int(variance)) if variance > 1e300 else float(variance) ** 0.5

    def quantiles(self, shares: np.ndarray) -> np.ndarray:
        """Values at shares of the finite values, to 0.05%, float64; zeros when there are none."""
        if not self.num_finite:
            return np.zeros(len(shares))
        return np.clip(float_values(self.histogram.quantiles(shares)), self.lowest, self.highest)
