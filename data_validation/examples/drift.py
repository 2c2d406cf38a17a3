"""Distances between the statistics of one column in two data sets, as TensorFlow Data Validation measures them."""

from __future__ import annotations

from typing import TypeAlias

import numpy as np
from tensorflow_metadata.proto.v0 import schema_pb2, statistics_pb2

_Feature: TypeAlias = statistics_pb2.FeatureNameStatistics
# Many columns are compared every day.
_SIGMAS = 4.0


def infinity_norm(found: _Feature, other: _Feature) -> tuple[float, str] | None:
    """Largest difference of any value's share (L-infinity), and that value; None for numbers or without values.

    Shares are of the values in the rank histograms, the thousand most frequent ones of each side.
    """
    labels, first, second = _category_shares(found, other)
    if first is None or second is None:
        return None
    apart = np.abs(first - second)
    worst = int(apart.argmax())
    return float(apart[worst]), labels[worst]


def jensen_shannon(found: _Feature, other: _Feature, source: int = 0) -> float | None:
    """Jensen-Shannon divergence in bits, 0 to 1; None when a side has no values.

    Args:
        found: One side; numbers or categories.
        other: The other side.
        source: For numbers, the histogram to compare: `schema_pb2.HistogramSelection.Type`, of equal width unless
            `QUANTILES`, which suits long tails.

    Unlike TensorFlow Data Validation 1.16, which takes equal shares of NaN for a difference, or overlooks NaN, this
    counts NaN as one more value.
    """
    if found.HasField("string_stats"):
        _, first, second = _category_shares(found, other)
        return None if first is None or second is None else _divergence(first, second)
    quantiles = source == schema_pb2.HistogramSelection.QUANTILES
    sides = [_histogram(feature, quantiles) for feature in (found, other)]
    if sides[0] is None or sides[1] is None:
        return None
    first, second, _ = common_cells(sides[0], sides[1])
    return None if not first.sum() or not second.sum() else _divergence(first / first.sum(), second / second.sum())


def infinity_by_chance(found: _Feature, other: _Feature) -> float:
    """The L-infinity distance that two samples of these sizes seldom pass though nothing differs.

    A share p of n values has a standard error of sqrt(p (1 - p) / n); of all shares the largest errs most.
    """
    _, first, second = _category_shares(found, other)
    if first is None or second is None:
        return 0.0
    share = (first + second) / 2
    return float(_SIGMAS * np.sqrt((share * (1 - share)).max() * _inverse_sizes(found, other)))


def divergence_by_chance(found: _Feature, other: _Feature, source: int = 0) -> float:
    """The Jensen-Shannon divergence likewise, in bits.

    With k cells it is about chi-squared with k - 1 degrees of freedom, times (1/n + 1/m) / (8 ln 2).
    """
    if found.HasField("string_stats"):
        labels, _, _ = _category_shares(found, other)
        cells = len(labels)
    else:
        quantiles = source == schema_pb2.HistogramSelection.QUANTILES
        sides = [_histogram(feature, quantiles) for feature in (found, other)]
        if sides[0] is None or sides[1] is None:
            return 0.0
        first, second, _ = common_cells(sides[0], sides[1])
        cells = int(((first + second) > 0).sum())
    freedom = max(cells - 1, 0)
    return float((freedom + _SIGMAS * np.sqrt(2 * freedom)) * _inverse_sizes(found, other) / (8 * np.log(2)))


def _inverse_sizes(found: _Feature, other: _Feature) -> float:
    sizes = (_num_values(feature) for feature in (found, other))
    return sum(1 / max(size, 1) for size in sizes)


def _num_values(feature: _Feature) -> int:
    kind = feature.string_stats if feature.HasField("string_stats") else feature.num_stats
    return int(kind.common_stats.tot_num_values or kind.common_stats.num_non_missing)


def _divergence(first: np.ndarray, second: np.ndarray) -> float:
    middle = (first + second) / 2
    total = 0.0
    for side in (first, second):
        some = side > 0
        total += float((side[some] * np.log2(side[some] / middle[some])).sum())
    return min(max(total / 2, 0.0), 1.0)


def _category_shares(found: _Feature, other: _Feature) -> tuple[list[str], np.ndarray | None, np.ndarray | None]:
    counts = [
        {bucket.label: bucket.sample_count for bucket in feature.string_stats.rank_histogram.buckets}
        for feature in (found, other)
    ]
    if not counts[0] or not counts[1]:
        return [], None, None
    labels = sorted(counts[0].keys() | counts[1].keys())
    sides = [np.array([side.get(label, 0.0) for label in labels]) for side in counts]
    return labels, sides[0] / sides[0].sum(), sides[1] / sides[1].sum()


def _histogram(feature: _Feature, quantiles: bool) -> statistics_pb2.Histogram | None:
    wanted = statistics_pb2.Histogram.QUANTILES if quantiles else statistics_pb2.Histogram.STANDARD
    return next((h for h in feature.num_stats.histograms if h.type == wanted), None)


def common_cells(
    first: statistics_pb2.Histogram, second: statistics_pb2.Histogram
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Counts of both sides on one grid, and the grid's edges.

    The grid is made of all edges of both; behind its cells come single values and NaN. A bucket's count is spread
    evenly over the cells that it covers; a bucket without width is a single value.
    """
    sides = [_split(histogram) for histogram in (first, second)]
    grid = np.unique(np.concatenate([edges.ravel() for edges, _, _ in sides]))
    points = sorted(sides[0][2].keys() | sides[1][2].keys())
    rows = []
    for (edges, counts, single), histogram in zip(sides, (first, second), strict=True):
        cells = np.zeros(max(len(grid) - 1, 0))
        for (low, high), count in zip(edges, counts, strict=True):
            start, stop = np.searchsorted(grid, [low, high])
            cells[start:stop] += np.diff(grid[start : stop + 1]) / (high - low) * count
        rows.append(np.concatenate([cells, [single.get(point, 0.0) for point in points], [histogram.num_nan]]))
    return rows[0], rows[1], grid


def _split(histogram: statistics_pb2.Histogram) -> tuple[np.ndarray, np.ndarray, dict[float, float]]:
    wide = [b for b in histogram.buckets if b.high_value > b.low_value and np.isfinite(b.high_value - b.low_value)]
    single: dict[float, float] = {}
    for bucket in histogram.buckets:
        if bucket.high_value == bucket.low_value or not np.isfinite(bucket.high_value - bucket.low_value):
            at = bucket.high_value if np.isfinite(bucket.low_value) else bucket.low_value
            single[at] = single.get(at, 0.0) + bucket.sample_count
    edges = np.array([(b.low_value, b.high_value) for b in wide]).reshape(-1, 2)
    return edges, np.array([b.sample_count for b in wide]), single
