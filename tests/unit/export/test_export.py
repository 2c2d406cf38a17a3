import re
import shutil
from datetime import timedelta

import numpy as np
import onnx
import pytest
import torch

from components.common import storage
from components.common.errors import InputError
from components.common.layout import Store
from components.common.manifests import read_manifest
from components.common.records import write_record
from components.export.comparison import Reference, _beyond_limits, _compare_objective
from components.export.config import ExportConfig
from components.export.run import export_releases
from components.features.examples import EVALUATION, read_examples
from components.features.objectives import OBJECTIVE_NAMES
from components.features.vectors import KnownVectors
from components.ranker.checkpoint import TrainedRanker, find_checkpoint
from components.ranker.dataset import tensors_of
from components.ranker.prediction import predict
from components.tables.look_ups import double_of
from components.train.config import TrainConfig
from components.train.training_state import load_state, new_state, write_checkpoint
from components.version.manifest import ONNX_INPUTS, VersionManifest
from components.version.parity import ObjectiveParity
from components.version.predictor import Predictor
from components.version.table_packing import bytes_of, pack_tables
from components.version.version import Version
from tests.unit.export.served import blessing_of, take_tables


def newest_vectors(deployment):
    next_day = deployment.scored_day + timedelta(days=1)
    return KnownVectors.before(deployment.store, deployment.config.features, next_day, next_day).newest()


def test_version_predicts_what_the_evaluator_predicts(exported):
    deployment, manifest, uri = exported
    predictor = Predictor.from_version(Version.open(uri))
    state, _ = load_state(deployment.store, "baseline", deployment.batch_days[-1])
    table, _ = read_examples(deployment.store, EVALUATION, deployment.scored_day)
    known = newest_vectors(deployment)
    examples = tensors_of(table, state.features, True, state.indexes, known)
    served, expected = predictor.predict(table), predict(state.model, state.lineage.negative_keep_rate, examples, 512)
    parity = manifest.parity
    assert parity.max_difference < 1e-6
    difference = np.abs(served - expected).max()
    assert 1e-6 < difference < 0.02 and difference == pytest.approx(parity.int4_max_difference)
    # The same net on the tables as INT4 has them predicts what is served.
    before = {name: rows.clone() for name, rows in state.model.embeddings.tables().items()}
    packed = take_tables(state.model, Version.open(uri))
    for name, rows in state.model.embeddings.tables().items():
        torch.testing.assert_close(rows, before[name], rtol=0, atol=0.02)
    served_examples = tensors_of(table, state.features, True, state.indexes, packed)
    # Of 8 bits: a vector's error is below 1% of its length.
    error = (served_examples.vectors - examples.vectors).norm() / examples.vectors.norm()
    assert 0 < error < 0.01
    examples = served_examples
    assert np.abs(served - predict(state.model, state.lineage.negative_keep_rate, examples, 512)).max() < 1e-6
    assert manifest.lineage.negative_keep_rate == 0.5


def test_gated_rows_are_served_mixed(unexported):
    deployment, day = unexported.deployment, unexported.deployment.batch_days[-1]
    store, features = deployment.store, deployment.config.features
    plain, _ = load_state(store, "baseline", day)
    optimizer = {**plain.config.optimizer.model_dump(), "tables": "lazy_adam"}
    values = {**plain.config.model_dump(), "optimizer": optimizer, "pretrained": {"mode": "gated"}}
    state = new_state(features, TrainConfig.parse(values, "train"), plain.lineage)
    state.model.net.load_state_dict(plain.model.net.state_dict(), strict=False)
    with torch.no_grad():
        state.model.embeddings.weight.normal_(std=0.3)
        for gate in state.model.net.gates.gates:
            gate.weight.normal_()
    storage.remove(store.checkpoint("baseline", day))
    write_checkpoint(store, state, find_checkpoint(deployment.store, "sparse_optimizer", day).origin, {}, {})
    blessing = blessing_of(deployment)
    write_record(store.blessing("batch", deployment.scored_day), blessing)
    (version,) = export_releases(store.root, ExportConfig(), "batch", deployment.scored_day).versions
    assert version.version, version.withheld
    opened = Version.open(store.staged_version(version.checkpoint_digest))
    assert {spec.name for spec in opened.manifest.tables} == {*features.tables, *features.vector_names}
    table, _ = read_examples(store, EVALUATION, deployment.scored_day)
    served, ranker = Predictor.from_version(opened).predict(table), TrainedRanker.load(store, "baseline", day)
    examples = tensors_of(table, features, True, ranker.indexes, newest_vectors(deployment))
    difference = np.abs(served - ranker.predict(examples, 512))
    for name in ranker.model.embeddings.layout.doubled:
        ranker.model.embeddings.tables()[double_of(name)].zero_()
    without = np.abs(served - ranker.predict(examples, 512))
    assert difference.max() < 0.02 and without.mean() > 5 * difference.mean()


def test_other_settings_make_another_version_and_the_same_ones_nothing(exported, tmp_path, monkeypatch):
    deployment, manifest, uri = exported
    shutil.copytree(deployment.store.root, tmp_path, dirs_exist_ok=True)
    run = ("batch", deployment.scored_day)
    finer_export = export_releases(str(tmp_path), ExportConfig(opset=21), *run)
    finer = read_manifest(Store(str(tmp_path)).staged_version(manifest.checkpoint_digest), VersionManifest)
    assert finer.version_digest != manifest.version_digest and finer.origin.settings["opset"] == 21
    monkeypatch.setattr("components.export.run.TrainedRanker", None)
    assert export_releases(str(tmp_path), ExportConfig(opset=21, parity_rows=7), *run) == finer_export


@pytest.mark.parametrize("rows", [1, 2, 7])
def test_batch_size_is_free(exported, rows):
    deployment, _, uri = exported
    predictor = Predictor.from_version(Version.open(uri))
    table, _ = read_examples(deployment.store, EVALUATION, deployment.scored_day)
    together = predictor.predict(table.slice(0, 20))
    assert np.allclose(predictor.predict(table.slice(0, rows)), together[:rows], atol=1e-6)


def test_onnx_is_checked_and_has_named_inputs(exported):
    _, _, uri = exported
    model = onnx.load_from_string(storage.read_bytes(storage.join_uri(uri, "ranker.onnx")))
    onnx.checker.check_model(model)
    assert [value.name for value in model.graph.input] == list(ONNX_INPUTS)
    assert [value.name for value in model.graph.output] == ["probabilities"]
    assert all(value.type.tensor_type.shape.dim[0].dim_param for value in model.graph.input)


def test_parity_beyond_the_limit_stops(trained, tmp_path):
    candidate = blessing_of(trained, "sparse_optimizer", "promote")
    write_record(trained.store.blessing("daily", trained.scored_day), candidate)
    export = export_releases(trained.store.root, ExportConfig(max_parity_difference=1e-15), "daily", trained.scored_day)
    (version,) = export.versions
    assert re.search("differs from the checkpoint by .* on ", version.withheld) and not version.version
    assert not storage.exists(trained.store.staged_version(candidate.releases[0].checkpoint_digest))


def test_int4_beyond_its_limits_stops(trained, monkeypatch):
    """Tables that are not what the checkpoint has; the finest layout does not help either."""
    candidate = blessing_of(trained, "sparse_optimizer", "promote")
    write_record(trained.store.blessing("daily", trained.scored_day), candidate)

    def pack_damaged(tables, *others):
        return pack_tables({name: rows + 0.5 for name, rows in tables.items()}, *others)

    monkeypatch.setattr("components.export.run.pack_tables", pack_damaged)
    export = export_releases(trained.store.root, ExportConfig(), "daily", trained.scored_day)
    assert re.search("INT4 tables change the mean prediction of checkout", export.versions[0].withheld)
    assert not storage.exists(trained.store.staged_version(candidate.releases[0].checkpoint_digest))


def test_chance_of_few_conversions_is_allowed_for():
    config = ExportConfig()
    parity = ObjectiveParity(
        auc=0.7,
        int4_auc=0.7,
        auc_change_percent=0.25,
        auc_change_error_percent=0.1,
        expected_auc_change_percent=-0.05,
        mean_prediction_ratio=1.0,
    )
    assert _beyond_limits("checkout_given_click", parity, config) == []
    for change in (
        {"auc_change_error_percent": 0.05},
        {"auc_change_percent": -0.35},
        {"mean_prediction_ratio": 0.98},
        {"expected_auc_change_percent": -0.11},
    ):
        assert len(_beyond_limits("checkout_given_click", parity.model_copy(update=change), config)) == 1


@pytest.mark.parametrize(
    "unknown",
    [
        {"auc_change_percent": None},
        {"auc_change_error_percent": None},
        {"expected_auc_change_percent": None},
        {"mean_prediction_ratio": None},
        {"auc_change_error_percent": float("nan")},
        {"auc_change_percent": float("nan")},
        {"mean_prediction_ratio": float("nan")},
    ],
)
def test_what_cannot_be_told_is_beyond_the_limits(unknown):
    known = {"auc_change_percent": 0.0, "auc_change_error_percent": 0.01, "expected_auc_change_percent": 0.0}
    parity = ObjectiveParity(**{**known, "mean_prediction_ratio": 1.0, **unknown})
    assert len(_beyond_limits("checkout_given_click", parity, ExportConfig())) == 1


@pytest.mark.parametrize("rows", [0, 1])
def test_parity_takes_two_rows(exported, rows):
    deployment, _, _ = exported
    ranker = TrainedRanker.load(deployment.store, "baseline", deployment.batch_days[-1])
    table, _ = read_examples(deployment.store, EVALUATION, deployment.scored_day)
    with pytest.raises(InputError, match=f"takes two evaluation rows at least, there are {rows}"):
        Reference.of(ranker, table.slice(0, rows))


def test_expected_auc_has_no_label_in_it():
    """It finds ranks that moved among rows of which none became a positive."""
    generator = np.random.default_rng(0)
    probabilities = generator.random(4000) * 0.02
    labels, users = np.zeros(4000), np.arange(4000)
    labels[:3] = 1
    same = _compare_objective(labels, users, probabilities, probabilities)
    moved = _compare_objective(labels, users, probabilities, probabilities * generator.normal(1, 0.3, 4000))
    assert same.expected_auc_change_percent == 0 and -5 < moved.expected_auc_change_percent < -0.5


def test_parity_report_compares_objectives(exported):
    parity = exported[1].parity
    assert parity.rows > 500 and set(parity.objectives) == set(OBJECTIVE_NAMES)
    for one in parity.objectives.values():
        assert one.int4_auc == pytest.approx(one.auc * (1 + one.auc_change_percent / 100))
        assert one.mean_prediction_ratio == pytest.approx(1, abs=0.01)
    tables = [spec for spec in exported[1].tables if spec.name not in exported[1].features.vector_names]
    assert bytes_of(tables).ratio == (8 / 2 + 4) / (8 * 2) < parity.table_bytes.ratio < 1


def test_nothing_is_exported_without_a_release(trained):
    day = trained.batch_days[0]
    with pytest.raises(InputError, match="allows nothing"):
        export_releases(trained.store.root, ExportConfig(), "daily", day)


def test_checkpoint_that_is_not_the_released_one_is_refused(trained):
    write_record(trained.store.blessing("other", trained.scored_day), blessing_of(trained, digest="0" * 64))
    with pytest.raises(InputError, match="is not the released 000000000000"):
        export_releases(trained.store.root, ExportConfig(), "other", trained.scored_day)


def test_missing_feature_is_named(exported):
    deployment, _, uri = exported
    table, _ = read_examples(deployment.store, EVALUATION, deployment.scored_day)
    with pytest.raises(InputError, match=r"lack 1 columns .* \['surface'\]"):
        Predictor.from_version(Version.open(uri)).predict(table.drop_columns("surface"))
