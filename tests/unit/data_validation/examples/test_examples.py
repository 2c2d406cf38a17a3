import pyarrow as pa
import pytest

from components.common import storage
from components.common.errors import InputError
from components.features.examples import EVALUATION, read_examples
from data_validation.config import DensityRange, ValidationConfig
from data_validation.examples.anomalies import stopping, validate_statistics
from data_validation.examples.schema import contract_schema
from data_validation.examples.statistics import compute_statistics
from data_validation.examples.validate import NOT_DESCRIBED, categorical_columns, validate_examples


@pytest.fixture(scope="module")
def table(joined):
    return read_examples(joined.store, EVALUATION, joined.scored_day)[0]


def anomalies_of(joined, table, config=None, previous=None):
    config = config or ValidationConfig()
    schema = contract_schema(joined.config.features, config)
    categorical = categorical_columns(schema)
    statistics = compute_statistics(table.drop_columns(sorted(NOT_DESCRIBED)), "tested", categorical)
    before = previous and compute_statistics(previous.drop_columns(sorted(NOT_DESCRIBED)), "before", categorical)
    return validate_statistics(statistics, schema, before, severities=config.severity_of_types())


def replaced(table, name, values):
    return table.set_column(table.column_names.index(name), name, values)


def test_joined_examples_hold_the_schema(joined, table):
    assert not anomalies_of(joined, table).anomaly_info


@pytest.mark.parametrize(
    ("change", "column", "text"),
    [
        (lambda t: t.drop_columns("price"), "price", "absent"),
        (lambda t: t.append_column("extra", t["price"]), "extra", "not in the schema"),
        (
            lambda t: replaced(t, "item_id_impressions", pa.array([-1.0] * len(t), pa.float32())),
            "item_id_impressions",
            "expected at least 0",
        ),
        (lambda t: replaced(t, "price", pa.array([float("nan")] * len(t), pa.float32())), "price", "are NaN"),
        (lambda t: replaced(t, "clicked", pa.array([2] * len(t), pa.int8())), "clicked", "at most 1"),
        (lambda t: replaced(t, "user_id", pa.array([0.5] * len(t))), "user_id", "values are FLOAT, expected INT"),
        (lambda t: replaced(t, "user_id", pa.nulls(len(t), pa.int64())), "user_id", "have no value"),
        (lambda t: t.slice(0, 0), "(all)", "no examples"),
        (
            lambda t: replaced(t, "sequence_gap", pa.array([[1] * 99] * len(t))),
            "sequence_gap",
            "at most 10 expected",
        ),
    ],
)
def test_break_of_the_schema_stops(joined, table, change, column, text):
    problems = stopping(anomalies_of(joined, change(table)))
    assert text in problems[column]


def test_drift_warns_but_does_not_stop(joined, table):
    drifted = replaced(table, "surface", pa.array([1] * len(table), pa.int64()))
    found = anomalies_of(joined, drifted, previous=table)
    assert "L-infinity" in found.anomaly_info["surface"].description
    assert stopping(found) == {}


def test_small_days_drift_only_beyond_chance(joined, table):
    """Of a few dozen rows any two halves are far apart; a column that really changed still is found."""
    few, others = table.slice(0, 40), table.slice(40, 40)
    strict = ValidationConfig(max_drift=0.02, max_divergence=0.01)
    schema = contract_schema(joined.config.features, strict)
    severities = strict.severity_of_types()

    def found(first, second, allows_chance):
        both = [
            compute_statistics(t.drop_columns(sorted(NOT_DESCRIBED)), "tested", categorical_columns(schema))
            for t in (first, second)
        ]
        return validate_statistics(both[0], schema, both[1], severities=severities, allows_chance=allows_chance)

    assert len(found(few, others, False).anomaly_info) > 5
    assert not found(few, others, True).anomaly_info
    moved = replaced(few, "surface", pa.array([4] * 40))
    assert set(found(moved, others, True).anomaly_info) == {"surface"}


def test_statistics_by_hand():
    table = pa.table(
        {"price": pa.array([0.0, 1.0, 2.0, 5.0], pa.float32()), "item": pa.array([7, 7, 8, 9], pa.int64())}
    )
    price, item = compute_statistics(table, "hand", frozenset({"item"})).datasets[0].features
    assert (price.num_stats.mean, price.num_stats.min, price.num_stats.max) == (2.0, 0.0, 5.0)
    assert price.num_stats.num_zeros == 1 and price.num_stats.median == 2.0
    assert item.string_stats.unique == 3
    assert (item.string_stats.top_values[0].value, item.string_stats.top_values[0].frequency) == ("7", 2.0)


def test_run_is_stopped_by_a_label_without_positives(joined):
    config = ValidationConfig(label_density={"checkouts": DensityRange(at_least=0.99)})
    with pytest.raises(InputError, match=r"examples of .* break the schema: checkouts: .* of the rows are positive"):
        validate_examples(joined.store.root, joined.config.dataset, joined.config.features, config, [joined.scored_day])
    assert not storage.exists(joined.store.example_statistics(joined.scored_day))
