import shutil

import numpy as np
import onnx
import pytest
import torch

from components.common import storage
from components.common.errors import InputError
from components.common.examples import EVALUATION, read_examples
from components.common.int4 import dequantize
from components.common.layout import Store
from components.common.manifests import read_manifest
from components.common.objectives import OBJECTIVE_NAMES
from components.common.packed_tables import PackedTable, pack_tables
from components.common.release import Blessing, Release, read_pointer, read_publication, write_record
from components.common.servable import ONNX_INPUTS, version_digest
from components.evaluate.score import predict
from components.export.config import ExportConfig
from components.export.parity import _beyond_limits
from components.export.run import export_releases
from components.publish.registry import publish_releases
from components.serve.predictor import Predictor, load_served
from components.train.checkpoint import checkpoint_digest, find_checkpoint, load_checkpoint
from components.train.dataset import tensors_of


def blessing_of(deployment, arm="control", action="first", digest=None):
    through = deployment.batch_days[-1]
    manifest = find_checkpoint(deployment.store, arm, through)
    release = Release(
        action=action,
        arm=arm,
        checkpoint_digest=digest or checkpoint_digest(manifest),
        trained_through=through,
        reasons=("test",),
    )
    return Blessing(
        pipeline="batch",
        event_date=deployment.scored_day,
        blessed=False,
        reasons=(),
        gain=None,
        releases=(release,),
        ledger_digest="",
    )


@pytest.fixture(scope="module")
def exported(trained):
    """The control's version, exported but not published."""
    write_record(trained.store.blessing("batch", trained.scored_day), blessing_of(trained))
    (manifest,) = export_releases(trained.store.root, ExportConfig(), "batch", trained.scored_day)
    return trained, manifest, trained.store.staged_version(manifest.inputs["checkpoint"])


def test_version_predicts_what_the_evaluator_predicts(exported):
    deployment, manifest, uri = exported
    predictor, _ = Predictor.from_version(uri)
    state, _ = load_checkpoint(deployment.store, "control", deployment.batch_days[-1])
    table, _ = read_examples(deployment.store, EVALUATION, deployment.scored_day)
    examples = tensors_of(table, state.features, unsampled=True)
    served, expected = predictor.predict(table), predict(state, examples, 512)
    parity = manifest.details["parity"]
    assert parity["max_difference"] < 1e-6
    difference = np.abs(served - expected).max()
    assert 1e-6 < difference < 0.02 and difference == pytest.approx(parity["int4_max_difference"])
    # The same net on the tables as INT4 has them predicts what is served.
    content = storage.map_bytes(storage.join_uri(uri, "tables.int4"))
    for values in manifest.details["tables"]:
        spec = PackedTable.parse(values, "table")
        packed = content[spec.first_byte :][: spec.num_bytes].reshape(spec.num_rows, -1)
        rows = torch.from_numpy(dequantize(packed, spec.layout))
        torch.testing.assert_close(state.model.embeddings.tables()[spec.name], rows, rtol=0, atol=0.02)
        state.model.embeddings.tables()[spec.name].copy_(rows)
    assert np.abs(served - predict(state, examples, 512)).max() < 1e-6
    assert manifest.details["lineage"]["negative_keep_rate"] == 0.5


def test_other_settings_make_another_version_and_the_same_ones_nothing(exported, tmp_path, monkeypatch):
    deployment, manifest, uri = exported
    shutil.copytree(deployment.store.root, tmp_path, dirs_exist_ok=True)
    run = ("batch", deployment.scored_day)
    (finer,) = export_releases(str(tmp_path), ExportConfig(opset=21), *run)
    assert version_digest(finer) != version_digest(manifest) and finer.settings["opset"] == 21
    monkeypatch.setattr("components.export.run.load_checkpoint", None)
    assert export_releases(str(tmp_path), ExportConfig(opset=21, parity_rows=7), *run) == [finer]


@pytest.mark.parametrize("rows", [1, 2, 7])
def test_batch_size_is_free(exported, rows):
    deployment, _, uri = exported
    predictor, _ = Predictor.from_version(uri)
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
    candidate = blessing_of(trained, "candidate", "promote")
    write_record(trained.store.blessing("daily", trained.scored_day), candidate)
    with pytest.raises(InputError, match="differs from the checkpoint by .* on "):
        export_releases(trained.store.root, ExportConfig(max_parity_difference=1e-15), "daily", trained.scored_day)
    assert not storage.exists(trained.store.staged_version(candidate.releases[0].checkpoint_digest))


def test_int4_beyond_its_limits_stops(trained, monkeypatch):
    """Tables that are not what the checkpoint has; the finest layout does not help either."""
    candidate = blessing_of(trained, "candidate", "promote")
    write_record(trained.store.blessing("daily", trained.scored_day), candidate)

    def pack_damaged(tables, *others):
        return pack_tables({name: rows + 0.5 for name, rows in tables.items()}, *others)

    monkeypatch.setattr("components.export.run.pack_tables", pack_damaged)
    with pytest.raises(InputError, match="INT4 tables change the mean prediction of checkout.* nothing is exported"):
        export_releases(trained.store.root, ExportConfig(), "daily", trained.scored_day)
    assert not storage.exists(trained.store.staged_version(candidate.releases[0].checkpoint_digest))


def test_chance_of_few_conversions_is_allowed_for():
    config = ExportConfig()
    found = {"auc_change_percent": 0.25, "auc_change_error_percent": 0.1, "mean_prediction_ratio": 1.0}
    assert _beyond_limits("checkout_given_click", found, config) == []
    for change in ({"auc_change_error_percent": 0.05}, {"auc_change_percent": -0.35}, {"mean_prediction_ratio": 0.98}):
        assert len(_beyond_limits("checkout_given_click", found | change, config)) == 1


def test_parity_report_compares_objectives(exported):
    parity = exported[1].details["parity"]
    assert parity["rows"] > 500 and set(parity["objectives"]) == set(OBJECTIVE_NAMES)
    for found in parity["objectives"].values():
        assert found["int4_auc"] == pytest.approx(found["auc"] * (1 + found["auc_change_percent"] / 100))
        assert found["mean_prediction_ratio"] == pytest.approx(1, abs=0.01)
    assert parity["table_bytes"]["ratio"] == (8 / 2 + 4) / (8 * 2)


def test_nothing_is_exported_without_a_release(trained):
    day = trained.batch_days[0]
    with pytest.raises(InputError, match="allows nothing"):
        export_releases(trained.store.root, ExportConfig(), "daily", day)


def test_checkpoint_that_is_not_the_released_one_is_refused(trained):
    write_record(trained.store.blessing("other", trained.scored_day), blessing_of(trained, digest="0" * 64))
    with pytest.raises(InputError, match="is not the released 000000000000"):
        export_releases(trained.store.root, ExportConfig(), "other", trained.scored_day)


def copy_export(exported, root):
    """A fresh store that holds only the exported version."""
    _, manifest, uri = exported
    store = Store(str(root))
    target = store.staged_version(manifest.inputs["checkpoint"])
    for name in storage.list_names(uri):
        storage.write_bytes(storage.join_uri(target, name), storage.read_bytes(storage.join_uri(uri, name)))
    return store, target


def test_publishing_moves_the_pointer_to_an_identical_copy(exported, tmp_path):
    deployment, manifest, _ = exported
    store, _ = copy_export(exported, tmp_path)
    for _ in range(2):
        publication = publish_releases(store, blessing_of(deployment), [version_digest(manifest)])
    assert publication.production == version_digest(manifest)
    assert not publication.promoted
    assert read_publication(store, "batch", deployment.scored_day) == publication
    predictor, served, pointer = load_served(store)
    assert served == manifest and pointer.arm == "control"
    assert store.versions() == [version_digest(manifest)]
    assert predictor.features == deployment.config.features


def test_experiment_leaves_production_alone(exported, tmp_path):
    deployment, manifest, _ = exported
    store, _ = copy_export(exported, tmp_path)
    publish_releases(store, blessing_of(deployment, action="experiment"), [version_digest(manifest)])
    assert read_pointer(store) is None
    assert read_pointer(store, "EXPERIMENT").version == version_digest(manifest)


def test_only_what_is_blessed_is_published(exported, tmp_path):
    deployment, manifest, _ = exported
    store, target = copy_export(exported, tmp_path)
    digest = version_digest(manifest)
    for blessing, digests in (
        (blessing_of(deployment).model_copy(update={"releases": ()}), [digest]),
        (blessing_of(deployment), []),
        (blessing_of(deployment), ["0" * 64]),
        (blessing_of(deployment, digest="0" * 64), [digest]),
    ):
        with pytest.raises(InputError):
            publish_releases(store, blessing, digests)
    storage.write_bytes(storage.join_uri(target, "tables.int4"), b"damaged")
    with pytest.raises(InputError, match=r"tables\.int4"):
        publish_releases(store, blessing_of(deployment), [digest])
    assert read_pointer(store) is None and store.versions() == []


def test_pointer_moves_last(exported, tmp_path, monkeypatch):
    """Killed just before the pointer, a server still sees nothing; the same call again completes."""
    import components.publish.registry as registry

    deployment, manifest, _ = exported
    store, _ = copy_export(exported, tmp_path)
    written = []

    def die_at_the_pointer(uri, record):
        if uri.endswith("CURRENT"):
            raise KeyboardInterrupt
        written.append(uri)
        write_record(uri, record)

    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(registry, "write_record", die_at_the_pointer)
        publish_releases(store, blessing_of(deployment), [version_digest(manifest)])
    assert written and read_pointer(store) is None
    assert read_manifest(store.version(version_digest(manifest)), "version") == manifest
    publish_releases(store, blessing_of(deployment), [version_digest(manifest)])
    assert read_pointer(store) is not None


def test_damaged_version_is_not_served(exported, tmp_path):
    deployment, manifest, _ = exported
    store, _ = copy_export(exported, tmp_path)
    publish_releases(store, blessing_of(deployment), [version_digest(manifest)])
    uri = storage.join_uri(store.version(version_digest(manifest)), "ranker.onnx")
    storage.write_bytes(uri, storage.read_bytes(uri)[:-1])
    with pytest.raises(InputError, match=r"ranker\.onnx"):
        load_served(store)


def test_nothing_published_is_said_so(tmp_path):
    with pytest.raises(InputError, match="nothing is published yet"):
        load_served(Store(str(tmp_path)))


def test_missing_feature_is_named(exported):
    deployment, _, uri = exported
    table, _ = read_examples(deployment.store, EVALUATION, deployment.scored_day)
    with pytest.raises(InputError, match=r"lack 1 columns .* \['surface'\]"):
        Predictor.from_version(uri)[0].predict(table.drop_columns("surface"))
