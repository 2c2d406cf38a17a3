import json
import shutil
from dataclasses import replace
from datetime import timedelta

import pyarrow as pa
import pytest
import torch

from components.common import parquet_files, storage
from components.common.errors import InputError
from components.common.layout import Store
from components.common.manifests import read_manifest, write_artifact
from components.features.examples import TRAINING, ExamplesManifest, read_examples
from components.ranker.checkpoint import find_checkpoint
from components.ranker.dataset import tensors_of
from components.train.config import TrainConfig
from components.train.one_model import train_batch, train_day
from components.train.trainer import Trainer
from components.train.training_state import load_state
from tests.conftest import Deployment


def copy_examples(joined: Deployment, root: str) -> Deployment:
    """The same examples in a store of one's own."""
    store = Store(root)
    for day in [*joined.batch_days, joined.scored_day]:
        uri = joined.store.examples(TRAINING, day)
        for name in storage.list_names(uri):
            content = storage.read_bytes(storage.join_uri(uri, name))
            storage.write_bytes(storage.join_uri(store.examples(TRAINING, day), name), content)
    shutil.copytree(storage.join_uri(joined.store.root, "vectors"), storage.join_uri(root, "vectors"))
    return replace(joined, store=store)


@pytest.fixture()
def own(joined, tmp_path):
    return copy_examples(joined, str(tmp_path / "own"))


def batch(deployment, arm="baseline", recipe=None):
    config = deployment.config
    recipe = recipe or config.arms[arm]
    return train_batch(deployment.store.root, arm, config.features, recipe, deployment.batch_days)


def day(deployment, arm="baseline", recipe=None, features=None):
    config = deployment.config
    recipe = recipe or config.arms[arm]
    return train_day(
        deployment.store.root,
        arm,
        features or config.features,
        recipe,
        deployment.scored_day,
        deployment.batch_days[-1],
    )


def test_training_is_deterministic(joined, tmp_path):
    digests = set()
    for name in "ab":
        deployment = copy_examples(joined, str(tmp_path / name))
        digests.add((batch(deployment), day(deployment)))
    assert len(digests) == 1


def test_finished_training_is_not_done_again(own, capsys):
    first = batch(own)
    capsys.readouterr()
    assert batch(own) == first
    assert "nothing to do" in capsys.readouterr().out


def test_another_recipe_is_trained_again(own):
    first = batch(own)
    recipe = own.config.arms["baseline"].model_copy(update={"seed": 7})
    assert batch(own, recipe=recipe) != first


def test_warm_start_goes_on_from_the_checkpoint(own):
    before = batch(own)
    day(own)
    state, _ = load_state(own.store, "baseline", own.scored_day)
    parent, digest = load_state(own.store, "baseline", own.batch_days[-1])
    assert state.lineage.parent == digest == before
    assert state.lineage.step > parent.lineage.step
    assert state.lineage.first_day == own.batch_days[0]
    weight = "net.shared.0.weight"
    moved = state.model.state_dict()[weight] - parent.model.state_dict()[weight]
    assert 0 < moved.abs().max() < 0.1
    step = next(value for name, value in state.optimizer.state_tensors().items() if name.endswith("step"))
    assert int(step) == state.lineage.step


def test_loaded_state_is_the_saved_state(own):
    """Training on from a loaded checkpoint gives what training on without the detour gives."""
    batch(own)
    table, _ = read_examples(own.store, TRAINING, own.scored_day)
    examples = tensors_of(table, own.config.features, unsampled=False)
    results = []
    for _ in range(2):
        state, _ = load_state(own.store, "baseline", own.batch_days[-1])
        trainer = Trainer(state.model, state.optimizer, state.config, "test", state.lineage.step)
        trainer.train_step(examples.batch(slice(0, 100)))
        results.append(torch.cat([p.flatten() for p in state.model.parameters()]))
    assert torch.equal(*results)


def test_warm_start_under_another_rate_is_refused(own):
    batch(own)
    uri = storage.join_uri(own.store.examples(TRAINING, own.scored_day), storage.MANIFEST_NAME)
    manifest = json.loads(storage.read_bytes(uri))
    manifest["negative_keep_rate"] = 0.1
    storage.write_bytes(uri, json.dumps(manifest).encode())
    with pytest.raises(InputError, match="trained at negative_keep_rate 0.5, the day's examples have 0.1"):
        day(own)


def test_warm_start_of_another_model_is_refused(own):
    batch(own)
    recipe = own.config.arms["baseline"]
    other = recipe.model_copy(update={"model": recipe.model.model_copy(update={"head_size": 5})})
    with pytest.raises(InputError, match="another train.model"):
        day(own, recipe=other)


def test_day_without_a_checkpoint_before_it_is_refused(own):
    with pytest.raises(InputError, match="no checkpoint to start"):
        day(own)


def test_damaged_checkpoint_is_refused(own):
    batch(own)
    uri = storage.join_uri(own.store.checkpoint("baseline", own.batch_days[-1]), "model.safetensors")
    storage.write_bytes(uri, storage.read_bytes(uri)[:-1])
    with pytest.raises(InputError, match=r"model\.safetensors"):
        day(own)


def test_tables_of_the_sparse_optimizer_move_faster(own):
    moved = {}
    for arm in ("baseline", "sparse_optimizer"):
        batch(own, arm)
        state, _ = load_state(own.store, arm, own.batch_days[-1])
        moved[arm] = state.model.embeddings.tables()["surface"].std().item()
    assert moved["sparse_optimizer"] > 3 * moved["baseline"]


def test_loss_curve_is_kept(own):
    batch(own)
    manifest = find_checkpoint(own.store, "baseline", own.batch_days[-1])
    uri = storage.join_uri(own.store.checkpoint("baseline", own.batch_days[-1]), "loss_curve.json")
    points = json.loads(storage.read_bytes(uri))
    steps = manifest.lineage.step
    assert len(points) == -(-steps // own.config.arms["baseline"].steps_per_point)
    assert points[-1]["step"] == manifest.lineage.step
    assert points[-1]["click"] < points[0]["click"]


def test_head_without_a_positive_is_left_out(own, capsys):
    for date in own.batch_days:
        table, manifest = read_examples(own.store, TRAINING, date)
        place = table.column_names.index("good_clicked")
        none = table.set_column(place, table.schema.field(place), pa.array([0] * len(table), pa.int8()))
        write_artifact(
            own.store.examples(TRAINING, date),
            manifest,
            lambda folder, rows=none: parquet_files.write_parquet(storage.join_uri(folder, "part-00000.parquet"), rows),
        )
    batch(own)
    state, _ = load_state(own.store, "baseline", own.batch_days[-1])
    assert state.lineage.left_out == ("good_click",)
    assert "baseline: the batch has no positive of good_click: left out" in capsys.readouterr().out
    day(own)
    assert load_state(own.store, "baseline", own.scored_day)[0].lineage.left_out == ("good_click",)


def test_loss_that_is_not_finite_stops_before_the_update(own):
    batch(own)
    state, _ = load_state(own.store, "baseline", own.batch_days[-1])
    table, _ = read_examples(own.store, TRAINING, own.scored_day)
    poisoned = tensors_of(table, own.config.features, unsampled=False).batch(slice(0, 50))
    poisoned.dense[3, 0] = float("nan")
    before = [parameter.clone() for parameter in state.model.parameters()]
    with pytest.raises(FloatingPointError, match="step .* is not finite"):
        Trainer(state.model, state.optimizer, state.config, "test", state.lineage.step).train_step(poisoned)
    assert all(torch.equal(a, b) for a, b in zip(before, state.model.parameters(), strict=True))


def test_examples_of_two_rates_are_refused(own):
    uri = storage.join_uri(own.store.examples(TRAINING, own.batch_days[0]), storage.MANIFEST_NAME)
    manifest = json.loads(storage.read_bytes(uri))
    manifest["negative_keep_rate"] = 0.1
    storage.write_bytes(uri, json.dumps(manifest).encode())
    with pytest.raises(InputError, match=r"negative_keep_rate \[0.1, 0.5\]"):
        batch(own)


def test_missing_examples_are_named(own):
    config = own.config
    with pytest.raises(InputError, match="no finished examples"):
        train_batch(
            own.store.root, "baseline", config.features, config.arms["baseline"], [own.scored_day + timedelta(days=1)]
        )
    assert read_manifest(own.store.examples(TRAINING, own.scored_day), ExamplesManifest).kind == "examples"


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_gpu_that_is_not_there_is_said_so(own):
    recipe = own.config.arms["baseline"]
    execution = recipe.execution.model_copy(update={"device": "cuda"})
    with pytest.raises(InputError, match="torch finds no GPU here; use auto or cpu"):
        batch(own, recipe=recipe.model_copy(update={"execution": execution}))


@pytest.mark.parametrize("seed", [20170301, 2**53 + 1, 2**63 - 1])
def test_any_seed_trains(own, seed):
    """Also where dropout and redrawn tables derive seeds from it."""
    recipe = own.config.arms["baseline"]
    changes = {"model": {"dropout": 0.1}, "optimizer": {"reinitialize": {}}, "epochs": 2, "seed": seed}
    values = recipe.model_dump(mode="json") | changes
    assert batch(own, recipe=TrainConfig.parse(values, "train"))


@pytest.mark.parametrize("seed", [-1, 2**63])
def test_seeds_have_bounds(seed):
    with pytest.raises(InputError, match=f"seed = {seed}: Input should be"):
        TrainConfig.parse({"seed": seed}, "train")
