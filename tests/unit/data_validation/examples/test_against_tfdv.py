"""Statistics, schemas, anomalies and distances against files that TensorFlow Data Validation 1.16.1 wrote.

`tests/golden/tfdv/make.py` makes them, in an environment of its own.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from google.protobuf import text_format
from tensorflow_metadata.proto.v0 import anomalies_pb2, schema_pb2, statistics_pb2

from data_validation.examples.anomalies import validate_statistics
from data_validation.examples.drift import infinity_norm, jensen_shannon
from data_validation.examples.schema import common_statistics, infer_schema
from data_validation.examples.statistics import compute_statistics

GOLDEN = Path("tests/golden/tfdv")
CATEGORICAL = frozenset({"i_category"})


def read_text(name, message):
    return text_format.Parse((GOLDEN / name).read_text(), message)


def theirs(name):
    return statistics_pb2.DatasetFeatureStatisticsList.FromString((GOLDEN / name).read_bytes())


def ours(name):
    return compute_statistics(pq.read_table(GOLDEN / name), name, CATEGORICAL)


def features(statistics):
    return {feature.path.step[0]: feature for feature in statistics.datasets[0].features}


@pytest.fixture(scope="module", params=["rows", "rows_next"])
def both(request):
    golden = {"rows": "statistics.pb", "rows_next": "statistics_next.pb"}[request.param]
    return features(ours(f"{request.param}.parquet")), features(theirs(golden))


def test_presence_and_value_counts_are_equal(both):
    found, expected = both
    assert found.keys() == expected.keys()
    names = ("num_non_missing", "num_missing", "min_num_values", "max_num_values", "tot_num_values")
    for name, feature in expected.items():
        assert found[name].type == feature.type
        for field in names:
            assert getattr(common_statistics(found[name]), field) == getattr(common_statistics(feature), field), name
        average = common_statistics(feature).avg_num_values
        assert common_statistics(found[name]).avg_num_values == pytest.approx(average, rel=1e-6)


def test_numbers_agree(both):
    found, expected = both
    for name, feature in expected.items():
        if not feature.HasField("num_stats"):
            continue
        stats, wanted = found[name].num_stats, feature.num_stats
        assert (stats.num_zeros, stats.min, stats.max) == (wanted.num_zeros, wanted.min, wanted.max)
        assert stats.mean == pytest.approx(wanted.mean, rel=1e-9)
        assert stats.std_dev == pytest.approx(wanted.std_dev, rel=1e-9)
        spread = wanted.std_dev
        assert stats.median == pytest.approx(wanted.median, rel=1e-3, abs=1e-3 * spread)
        for histogram, golden in zip(stats.histograms, wanted.histograms, strict=True):
            assert histogram.type == golden.type and histogram.num_nan == golden.num_nan
            for field in ("low_value", "high_value"):
                edges, truth = ([getattr(b, field) for b in h.buckets] for h in (histogram, golden))
                np.testing.assert_allclose(edges, truth, rtol=1e-3, atol=2e-3 * spread)
            # Theirs spread each of a thousand quantiles evenly, which moves whole integers; ours are counted. Where a
            # value fills several deciles, theirs share its count among them.
            is_float = feature.type == statistics_pb2.FeatureNameStatistics.FLOAT
            if is_float and histogram.type == statistics_pb2.Histogram.STANDARD:
                shares = [[b.sample_count / 5000 for b in h.buckets] for h in (histogram, golden)]
                np.testing.assert_allclose(shares[0], shares[1], atol=5e-3)


def test_frequent_values_and_distinct_counts_are_equal(both):
    found, expected = both
    for name, feature in expected.items():
        if not feature.HasField("string_stats"):
            continue
        stats, wanted = found[name].string_stats, feature.string_stats
        assert stats.unique == wanted.unique
        assert stats.avg_length == pytest.approx(wanted.avg_length, rel=1e-6)
        assert [top.frequency for top in stats.top_values] == [top.frequency for top in wanted.top_values]
        mine, golden = stats.rank_histogram, wanted.rank_histogram
        assert [b.sample_count for b in mine.buckets] == [b.sample_count for b in golden.buckets]
        # Of equally frequent values the last in the list may be another.
        last = golden.buckets[-1].sample_count
        counts = [{b.label: b.sample_count for b in h.buckets if b.sample_count > last} for h in (mine, golden)]
        assert counts[0] == counts[1]


def test_inferred_schema_is_identical():
    found = infer_schema(ours("rows.parquet"))
    # Theirs forgets that an integer was categorical.
    next(f for f in found.feature if f.name == "i_category").ClearField("int_domain")
    assert found == read_text("schema.pbtxt", schema_pb2.Schema())


def test_anomalies_are_the_same():
    schema = read_text("schema_drift.pbtxt", schema_pb2.Schema())
    golden = read_text("anomalies.pbtxt", anomalies_pb2.Anomalies())
    found = validate_statistics(ours("rows_next.parquet"), schema, ours("rows.parquet"))

    def reasons(anomalies):
        return {name: sorted(r.type for r in info.reason) for name, info in anomalies.anomaly_info.items()}

    assert reasons(found) == reasons(golden)


@pytest.mark.parametrize(
    ("name", "measure", "tolerance"),
    [
        ("f_normal", "JENSEN_SHANNON_DIVERGENCE", 5e-4),
        ("f_skewed", "JENSEN_SHANNON_DIVERGENCE", 5e-4),
        ("s_small", "JENSEN_SHANNON_DIVERGENCE", 1e-9),
        ("s_small", "L_INFTY", 1e-9),
        ("i_category", "L_INFTY", 1e-9),
    ],
)
def test_distances_are_the_same(name, measure, tolerance):
    golden = read_text("anomalies.pbtxt", anomalies_pb2.Anomalies())
    info = next(info for info in golden.drift_skew_info if info.path.step[0] == name)
    kind = anomalies_pb2.DriftSkewInfo.Measurement.Type.Value(measure)
    expected = next(m.value for m in info.drift_measurements if m.type == kind)
    for make, limit in ((ours, tolerance), (theirs, 1e-9)):
        names = ("rows_next.parquet", "rows.parquet") if make is ours else ("statistics_next.pb", "statistics.pb")
        found, other = (features(make(file))[name] for file in names)
        distance = infinity_norm(found, other)
        value = distance[0] if measure == "L_INFTY" and distance else jensen_shannon(found, other)
        assert value == pytest.approx(expected, abs=limit)
