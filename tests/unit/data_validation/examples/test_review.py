"""The flow of a reviewed schema: infer, compare, relax."""

from __future__ import annotations

import shutil
from datetime import date

import numpy as np
import pyarrow as pa
import pytest
from tensorflow_metadata.proto.v0 import schema_pb2

from components.common import parquet_files, storage
from components.common.errors import InputError
from components.common.layout import Store
from components.common.manifests import write_artifact
from components.features.examples import EARLY, TRAINING, read_examples
from data_validation.config import ValidationConfig
from data_validation.examples.anomalies import stopping, validate_statistics, warnings
from data_validation.examples.review import anomalies_by_day, infer_from_examples, relax_to_examples
from data_validation.examples.schema import read_schema, update_schema, write_schema
from data_validation.examples.statistics import compute_statistics
from data_validation.examples.validate import validate_examples
from data_validation.run import main_examples
from pipelines.config import load_config
from tests.conftest import small_values, write_config


@pytest.fixture()
def own(joined, tmp_path):
    """A store with the same examples and clean logs, to be changed."""
    root = str(tmp_path / "store")
    for name in ("examples", "clean_logs"):
        shutil.copytree(storage.join_uri(joined.store.root, name), storage.join_uri(root, name))
    return Store(root)


@pytest.fixture(scope="module")
def inferred(joined):
    return infer_from_examples(joined.store.root, joined.config.dataset, joined.config.features, ValidationConfig())


def rewrite_day(store: Store, day: date, change) -> None:
    """Change a day of training examples."""
    uri = store.examples(TRAINING, day)
    table, manifest = read_examples(store, TRAINING, day)
    write_artifact(
        uri,
        manifest,
        lambda staged: parquet_files.write_parquet(storage.join_uri(staged, "part-00000.parquet"), change(table)),
    )


def with_values(name, values):
    def change(table):
        kind = table.schema.field(name).type
        return table.set_column(table.column_names.index(name), name, pa.array(values(table), kind))

    return change


def test_inferred_schema_holds_for_the_days_that_it_was_inferred_from(joined, inferred):
    found = anomalies_by_day(joined.store.root, joined.config.dataset, inferred, ValidationConfig())
    assert len(found) == 5
    assert not any(stopping(anomalies) or warnings(anomalies) for anomalies in found.values())
    limits = {feature.name: feature.drift_comparator.infinity_norm.threshold for feature in inferred.feature}
    assert 0.01 <= limits["surface"] < 0.3


def test_schema_survives_its_file_and_the_configuration(joined, inferred, tmp_path):
    write_schema(str(tmp_path / "reviewed.pbtxt"), inferred)
    assert read_schema(str(tmp_path / "reviewed.pbtxt")) == inferred
    values = small_values()
    values["validation"] = {"reviewed_schema": "reviewed.pbtxt"}
    config = load_config(str(write_config(tmp_path / "config.yaml", values)))
    day = joined.batch_days[0]
    warned = validate_examples(
        joined.store.root, joined.config.dataset, joined.config.features, config.validation, [day]
    )
    assert warned == {str(day): []}


@pytest.mark.parametrize(("name", "content"), [("absent.pbtxt", None), ("bad.pbtxt", "feature { nme: 1 }")])
def test_unreadable_schema_is_named(tmp_path, name, content):
    if content:
        (tmp_path / name).write_text(content)
    values = small_values()
    values["validation"] = {"reviewed_schema": name}
    with pytest.raises(InputError, match=f"{name}: .*afterclick schema infer"):
        load_config(str(write_config(tmp_path / "config.yaml", values)))


def test_drifted_day_is_named_and_relaxing_lets_it_pass(joined, inferred, own):
    day, config = joined.batch_days[2], ValidationConfig()
    rewrite_day(own, day, with_values("surface", lambda table: np.ones(len(table), dtype=np.int64)))
    found = anomalies_by_day(own.root, joined.config.dataset, inferred, config)
    warned = {on: warnings(anomalies) for on, anomalies in found.items() if warnings(anomalies)}
    # Against the day before, and the next day against it.
    assert sorted(warned) == [day, joined.batch_days[3]]
    assert "surface: L-infinity distance" in warned[day][0]
    relaxed = relax_to_examples(own.root, joined.config.dataset, inferred, config)
    assert not any(
        warnings(anomalies) for anomalies in anomalies_by_day(own.root, joined.config.dataset, relaxed, config).values()
    )
    unchanged = [name for name in ("item_id", "price") if _feature(relaxed, name) != _feature(inferred, name)]
    assert unchanged == []


def test_severity_decides_what_stops(joined, inferred, own):
    day = joined.batch_days[2]
    rewrite_day(own, day, with_values("surface", lambda table: np.ones(len(table), dtype=np.int64)))
    for severity, stopped, warned in (("error", True, False), ("ignore", False, False)):
        config = ValidationConfig(severities={"COMPARATOR_L_INFTY_HIGH": severity})
        anomalies = anomalies_by_day(own.root, joined.config.dataset, inferred, config)[day]
        assert bool(stopping(anomalies)) is stopped and bool(warnings(anomalies)) is warned
    with pytest.raises(ValueError, match="no anomaly type of tensorflow-metadata"):
        ValidationConfig(severities={"DRIFT": "error"})


def test_volume_far_from_the_days_before_warns(joined, inferred):
    config = ValidationConfig.model_validate({"volume": {"at_least": 1.5, "at_most": 3.0}})
    found = anomalies_by_day(joined.store.root, joined.config.dataset, inferred, config)
    assert "of the usual" in warnings(found[joined.scored_day])[0]


def test_update_relaxes_every_kind_of_limit():
    before = pa.table(
        {
            "size": [1, 2, 3],
            "name": ["a", "b", "a"],
            "flag": [0, 1, 1],
            "gone": [1.0, 2.0, 3.0],
            "many": [[1], [2, 3], [4]],
        }
    )
    after = pa.table(
        {"size": [1, 9, -3], "name": ["a", "c", None], "flag": [0, 1, 2], "many": [[], [2], [4]], "more": [1, 2, 3]}
    )
    schema = schema_pb2.Schema()
    from data_validation.examples.schema import infer_schema

    schema.CopyFrom(infer_schema(compute_statistics(before, "before")))
    size = _feature(schema, "size").int_domain
    size.min, size.max = 1, 3
    found = compute_statistics(after, "after")
    broken = validate_statistics(found, schema).anomaly_info
    assert set(broken) == {"size", "name", "flag", "gone", "many", "more"}
    updated = update_schema(schema, found)
    assert not validate_statistics(found, updated).anomaly_info
    assert list(updated.string_domain[0].value) == ["a", "b", "c"]
    assert _feature(updated, "gone").lifecycle_stage == schema_pb2.DEPRECATED


def _feature(schema, name):
    return next(feature for feature in schema.feature if feature.name == name)


def test_each_limit_is_relaxed_on_its_own(joined, inferred):
    schema = schema_pb2.Schema()
    schema.CopyFrom(inferred)
    comparator = _feature(schema, "surface").drift_comparator
    comparator.infinity_norm.threshold = 0.9
    comparator.jensen_shannon_divergence.threshold = 0.8
    relaxed = relax_to_examples(joined.store.root, joined.config.dataset, schema, ValidationConfig())
    found = _feature(relaxed, "surface").drift_comparator
    assert (found.infinity_norm.threshold, found.jensen_shannon_divergence.threshold) == (0.9, 0.8)


def test_examples_of_another_configuration_are_refused(joined):
    config = load_config("complete_journey")
    with pytest.raises(InputError, match="differ in .* columns, such as .*--config"):
        infer_from_examples(joined.store.root, config.dataset, config.features, ValidationConfig())


def test_warnings_follow_the_day_before(joined, own):
    """Also when the day's own examples have not changed."""
    day, before = joined.batch_days[2], joined.batch_days[1]
    config = ValidationConfig.model_validate({"max_drift": 0.15})
    arguments = (own.root, joined.config.dataset, joined.config.features, config, [before, day])
    assert validate_examples(*arguments)[str(day)] == []
    rewrite_day(own, before, with_values("surface", lambda table: np.ones(len(table), dtype=np.int64)))
    assert "surface: L-infinity" in validate_examples(*arguments)[str(day)][0]


def test_refused_day_leaves_nothing(joined, own):
    day, config = joined.batch_days[2], ValidationConfig()
    arguments = (own.root, joined.config.dataset, joined.config.features, config, [day])
    validate_examples(*arguments)
    rewrite_day(own, day, with_values("clicked", lambda table: np.full(len(table), 9)))
    for _ in range(2):
        with pytest.raises(InputError, match="clicked: found 9"):
            validate_examples(*arguments)
    assert not storage.exists(own.example_statistics(day))
    assert storage.list_names(own.scratch("")) == []


def test_early_examples_are_checked_beside_final_ones(joined, own):
    day = joined.scored_day
    table, manifest = read_examples(own, TRAINING, day)
    bad = with_values("clicked", lambda table: np.full(len(table), 9))(table)
    write_artifact(
        own.examples(EARLY, day),
        manifest,
        lambda staged: parquet_files.write_parquet(storage.join_uri(staged, "part-00000.parquet"), bad),
    )
    config_uri = joined.config.write(own)
    main_examples(own.root, config_uri, (str(day), str(day)), [])
    with pytest.raises(InputError, match="clicked: found 9"):
        main_examples(own.root, config_uri, (str(day), str(day)), [str(day)])
