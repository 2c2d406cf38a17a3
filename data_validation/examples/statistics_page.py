"""Statistics as one HTML page: a table with a small histogram per column, beside those of other data."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import jinja2
import numpy as np
from tensorflow_metadata.proto.v0 import anomalies_pb2, statistics_pb2

from data_validation.examples.drift import common_cells, infinity_norm, jensen_shannon
from data_validation.examples.schema import common_statistics

_Feature: TypeAlias = statistics_pb2.FeatureNameStatistics
_Statistics: TypeAlias = statistics_pb2.DatasetFeatureStatisticsList
_TEMPLATES = Path(__file__).parent / "templates"
_WIDTH, _HEIGHT, _GAP = 220, 36, 1
_NUM_BARS = 20
_NUMBER_COLUMNS = ("missing", "zeros", "mean", "std dev", "min", "median", "max")
_CATEGORY_COLUMNS = ("missing", "distinct", "most frequent", "share", "values per row")


@dataclass(frozen=True)
class _Bar:
    x: float
    y: float
    width: float
    height: float
    title: str


def statistics_page(
    statistics: _Statistics,
    title: str,
    other: _Statistics | None = None,
    other_name: str = "",
    anomalies: anomalies_pb2.Anomalies | None = None,
) -> str:
    """Render statistics, and compare them with others when there are some.

    Args:
        statistics: One data set.
        title: Of the page.
        other: Another data set, e.g. the day before.
        other_name: What it is.
        anomalies: Listed on top.
    """
    known = {} if other is None else {feature.path.step[0]: feature for feature in other.datasets[0].features}
    sections: list[dict[str, Any]] = [
        {"title": "Numbers", "columns": _NUMBER_COLUMNS, "rows": []},
        {"title": "Categories", "columns": _CATEGORY_COLUMNS, "rows": []},
    ]
    num_examples = statistics.datasets[0].num_examples
    for feature in statistics.datasets[0].features:
        is_number = feature.HasField("num_stats")
        before = known.get(feature.path.step[0])
        before = before if before is not None and before.HasField("num_stats") == is_number else None
        sections[0 if is_number else 1]["rows"].append(_row(feature, before, num_examples))
    environment = jinja2.Environment(loader=jinja2.FileSystemLoader(_TEMPLATES), autoescape=True)
    return environment.get_template("statistics.html.jinja").render(
        title=title,
        num_examples=num_examples,
        other_name=other_name if other is not None else "",
        other_examples=other.datasets[0].num_examples if other is not None else 0,
        anomalies=_listed(anomalies) if anomalies is not None else [],
        sections=sections,
    )


def _listed(anomalies: anomalies_pb2.Anomalies) -> list[dict[str, str]]:
    infos = [("(all)", anomalies.dataset_anomaly_info)] if anomalies.dataset_anomaly_info.reason else []
    return [
        {
            "column": name,
            "text": info.description,
            "severity": "error" if info.severity == anomalies_pb2.AnomalyInfo.ERROR else "warning",
        }
        for name, info in [*infos, *sorted(anomalies.anomaly_info.items())]
    ]


def _row(feature: _Feature, before: _Feature | None, num_examples: float) -> dict[str, Any]:
    common = common_statistics(feature)
    total = max(common.tot_num_values, 1)
    missing = _share(num_examples - common.num_non_missing, num_examples)
    lengths = f"{common.min_num_values} to {common.max_num_values}" if common.max_num_values != 1 else ""
    if feature.HasField("num_stats"):
        stats = feature.num_stats
        numbers = [f"{value:.4g}" for value in (stats.mean, stats.std_dev, stats.min, stats.median, stats.max)]
        cells = [missing, _share(stats.num_zeros, total), *numbers]
        divergence = jensen_shannon(feature, before) if before is not None else None
        distance = "" if divergence is None else f"JS {divergence:.3f}"
    else:
        top = feature.string_stats.top_values[0] if feature.string_stats.top_values else None
        frequent = ["", ""] if top is None else [top.value[:24], _share(top.frequency, total)]
        cells = [missing, f"{feature.string_stats.unique:,}", *frequent, lengths]
        norm = infinity_norm(feature, before) if before is not None else None
        distance = "" if norm is None else f"L∞ {norm[0]:.3f}"
    labels, shares, others = _distribution(feature, before)
    highest = max([*shares, *others, 1e-12])
    width = min(_WIDTH / max(len(shares), 1), _WIDTH / 10)
    bars = [
        _Bar(
            round(place * width, 1),
            round(_HEIGHT * (1 - share / highest), 1),
            round(width - _GAP, 1),
            round(_HEIGHT * share / highest, 1),
            f"{label}: {share:.2%}",
        )
        for place, (label, share) in enumerate(zip(labels, shares, strict=True))
    ]
    points = [f"{(p + 0.5) * width:.1f},{_HEIGHT * (1 - share / highest):.1f}" for p, share in enumerate(others)]
    return {
        "name": feature.path.step[0],
        "cells": cells,
        "bars": bars,
        "line": " ".join(points),
        "distance": distance,
    }


def _share(count: float, total: float) -> str:
    share = count / total if total else 0.0
    return f"{share:.2%}" if share else "0%"


def _distribution(feature: _Feature, before: _Feature | None) -> tuple[list[str], list[float], list[float]]:
    """Labels and shares of this side, and shares of the other side or nothing."""
    sides = [feature] if before is None else [feature, before]
    if not feature.HasField("num_stats"):
        counts = [{b.label: b.sample_count for b in side.string_stats.rank_histogram.buckets} for side in sides]
        labels = list(counts[0])[:_NUM_BARS]
        totals = [max(common_statistics(side).tot_num_values, 1) for side in sides]
        shares = [[c.get(label, 0.0) / total for label in labels] for c, total in zip(counts, totals, strict=True)]
        return labels, shares[0], shares[1] if len(shares) > 1 else []
    histogram = next(h for h in feature.num_stats.histograms if h.type == statistics_pb2.Histogram.STANDARD)
    labels = [f"{bucket.low_value:.4g} to {bucket.high_value:.4g}" for bucket in histogram.buckets]
    total = max(sum(bucket.sample_count for bucket in histogram.buckets), 1e-12)
    own = [bucket.sample_count / total for bucket in histogram.buckets]
    if before is None or not own:
        return labels, own, []
    theirs = next(h for h in before.num_stats.histograms if h.type == statistics_pb2.Histogram.STANDARD)
    return labels, own, _rebucketed(theirs, histogram)


def _rebucketed(histogram: statistics_pb2.Histogram, like: statistics_pb2.Histogram) -> list[float]:
    """A histogram's shares in the buckets of another; what lies outside them is left out."""
    cells, _, grid = common_cells(histogram, like)
    total = max(float(cells.sum()), 1e-12)
    shares = []
    for bucket in like.buckets:
        start, stop = np.searchsorted(grid, [bucket.low_value, bucket.high_value])
        shares.append(float(cells[start:stop].sum()) / total)
    return shares
