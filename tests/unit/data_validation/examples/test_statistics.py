"""Statistics merge to the same bytes in any order, also beyond what is counted exactly."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tensorflow_metadata.proto.v0 import schema_pb2, statistics_pb2

from components.common.beam import LOCAL_RUNNER
from data_validation.examples import categories
from data_validation.examples.anomalies import validate_statistics
from data_validation.examples.categories import Categories
from data_validation.examples.numbers import Numbers
from data_validation.examples.statistics import (
    compute_statistics,
    describe_table,
    merge_tables,
    read_statistics,
    to_proto,
    write_statistics,
)


def rows(seed, count):
    generator = np.random.default_rng(seed)
    numbers = generator.lognormal(3, 2, count).astype(np.float32)
    numbers[generator.random(count) < 0.02] = np.nan
    lists = [generator.integers(0, 9, generator.integers(0, 4)).tolist() for _ in range(count)]
    return pa.table(
        {
            "price": numbers,
            "count": generator.poisson(2, count),
            "item": generator.zipf(1.3, count) % 1000,
            "name": np.array(["a", "bb", "ccc"])[generator.integers(0, 3, count)],
            "recent": pa.array(lists, pa.list_(pa.int64())),
            "flag": generator.random(count) < 0.5,
        }
    )


CATEGORICAL = frozenset({"item", "recent"})


def content(found):
    return to_proto(dict(sorted(found.items())), "tested").SerializeToString(deterministic=True)


@given(st.permutations(range(5)))
@settings(max_examples=20, deadline=None)
def test_any_order_of_merging_gives_the_same_bytes_as_one_table(order):
    parts = [rows(seed, 200 + 37 * seed) for seed in range(5)]
    found = [describe_table(parts[number], CATEGORICAL) for number in order]
    merged = merge_tables(merge_tables(found[0], found[1]), merge_tables(found[2], merge_tables(found[3], found[4])))
    expected = to_proto(describe_table(pa.concat_tables(parts), CATEGORICAL), "tested")
    actual = statistics_pb2.DatasetFeatureStatisticsList.FromString(content(merged))
    for found_feature, feature in zip(
        actual.datasets[0].features, sorted(expected.datasets[0].features, key=lambda f: f.path.step[0]), strict=True
    ):
        # A batch's own mean is rounded once; all else is exact.
        for field in ("mean", "std_dev"):
            wanted = getattr(feature.num_stats, field)
            assert getattr(found_feature.num_stats, field) == pytest.approx(wanted, rel=1e-12)
            found_feature.num_stats.ClearField(field)
            feature.num_stats.ClearField(field)
        assert found_feature == feature
    in_order = [describe_table(part, CATEGORICAL) for part in parts]
    again = in_order[0]
    for part in in_order[1:]:
        again = merge_tables(again, part)
    assert content(again) == content(merged)


def test_beam_gives_the_same_bytes_for_any_split_into_files(tmp_path):
    table = rows(3, 3000)
    for name, cuts in (("one", [0, 3000]), ("many", [0, 10, 1000, 1001, 3000])):
        for number, (start, stop) in enumerate(zip(cuts[:-1], cuts[1:], strict=True)):
            pq.write_table(table.slice(start, stop - start), tmp_path / f"{name}-{number}.parquet")
    files = {"one": [str(tmp_path / "one-0.parquet")], "many": [str(tmp_path / f"many-{i}.parquet") for i in range(4)]}
    write_statistics(files, str(tmp_path / "out"), CATEGORICAL, frozenset({"flag"}), LOCAL_RUNNER)
    one, many = (read_statistics(str(tmp_path / "out" / f"{name}.pb")) for name in ("one", "many"))
    described = [feature.path.step[0] for feature in one.datasets[0].features]
    assert described == ["count", "item", "name", "price", "recent"]
    for statistics in (one, many):
        statistics.datasets[0].name = ""
        for feature in statistics.datasets[0].features:
            feature.num_stats.mean = round(feature.num_stats.mean, 9)
            feature.num_stats.std_dev = round(feature.num_stats.std_dev, 9)
    assert one == many


def test_moments_do_not_cancel():
    moments = np.full(1000, 1.7e18) + np.arange(1000) * 1024.0
    merged = Numbers.of(moments[:300]).merge(Numbers.of(moments[300:]))
    assert merged.std_dev == pytest.approx(np.std(np.arange(1000) * 1024.0), rel=1e-12)


def test_infinite_values_count_for_the_extremes_only():
    found = Numbers.of(np.array([1.0, np.inf, -np.inf, np.nan, 3.0]))
    assert (found.mean, found.lowest, found.highest, found.num_nan) == (2.0, -np.inf, np.inf, 1)


def test_more_values_than_are_counted_exactly_keep_the_frequent_ones(monkeypatch):
    monkeypatch.setattr(categories, "MAX_DISTINCT", 1000)
    generator = np.random.default_rng(1)
    parts = [np.concatenate([generator.integers(0, 10**9, 3000), np.repeat([5, 6, 7], [90, 80, 70])]) for _ in range(4)]
    truth = len(np.unique(np.concatenate(parts)))

    def merged(order):
        total = Categories()
        for number in order:
            total = total.merge(Categories.of(pa.array(parts[number])))
        return total

    found = merged(range(4))
    assert found.most_frequent(3).to_pylist() == [
        {"value": value, "count": 4 * count} for value, count in ((5, 90), (6, 80), (7, 70))
    ]
    assert found.num_distinct == pytest.approx(truth, rel=0.03)
    assert found.num_distinct == merged([2, 0, 3, 1]).num_distinct
    assert len(found.frequencies) <= 1000


def test_column_of_another_kind_is_named():
    with pytest.raises(TypeError, match="column 'when': timestamp"):
        compute_statistics(pa.table({"when": pa.array([1], pa.timestamp("us"))}), "tested")


@pytest.mark.parametrize("values", [[1e200, -1e200, 3.0], [1.7e308, 1.0], [-1.7e308, 1.7e308], [5e-324, 0.0]])
def test_largest_and_smallest_floats_have_statistics(values):
    found = Numbers.of(np.array(values)).merge(Numbers.of(np.array([1.0])))
    expected = [Fraction(value) for value in [*values, 1.0]]
    mean = sum(expected) / len(expected)
    # As exact as the batch's own floats: a small value beside huge ones is lost.
    assert found.mean == pytest.approx(float(mean), rel=1e-12, abs=1e-15 * max(abs(value) for value in values))
    variance = sum((value - mean) ** 2 for value in expected) / len(expected)
    assert found.std_dev == pytest.approx(float(math.isqrt(int(variance))) or float(variance) ** 0.5, rel=1e-9)
    compute_statistics(pa.table({"value": values}), "tested")


@pytest.mark.parametrize("column", [pa.nulls(3, pa.float64()), pa.array([float("nan")] * 3), pa.array([], pa.int64())])
def test_column_without_numbers_breaks_no_range(column):
    schema = schema_pb2.Schema()
    feature = schema.feature.add(name="price")
    feature.float_domain.min = 1.0
    found = validate_statistics(compute_statistics(pa.table({"price": column}), "tested"), schema)
    assert not found.anomaly_info
