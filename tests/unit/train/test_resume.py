"""A run that is killed goes on to the same bits; points are kept and pruned; tests on the way stop a run early."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from dataclasses import replace

import pytest

from components.common import storage
from components.common.errors import InputError
from components.common.layout import Store
from components.common.manifests import read_manifest
from components.features.examples import ExamplesManifest
from components.features.objectives import OBJECTIVE_NAMES
from components.ranker.checkpoint import CheckpointManifest
from components.train.config import TrainConfig
from components.train.curves import boundary_jumps
from components.train.one_model import train_batch
from components.train.training_run import TrainingRun
from components.train.training_state import load_state
from tests.unit.train.test_run import copy_examples

RECIPE = {
    "batch_size": 64,
    "epochs": 2,
    "steps_per_point": 7,
    "model": {"embedding_dim": 8, "sequence_dim": 16, "hidden_sizes": [32], "head_size": 16, "dropout": 0.1},
    "optimizer": {
        "learning_rate": 1e-3,
        "table_multiplier": 50,
        "tables": "lazy_adam",
        "frequency_adaptive": {},
        "bias_correction": "row",
        "reinitialize": {"keep_above": 30},
    },
    "pool_rows": 700,
    "execution": {"resume_steps": 5},
}


def recipe(**changes):
    return TrainConfig.parse({**RECIPE, **changes}, "train")


@pytest.fixture()
def own(joined, tmp_path):
    return copy_examples(joined, str(tmp_path / "own"))


def train(own, config, arm="x"):
    return train_batch(own.store.root, arm, own.config.features, config, own.batch_days[:3])


class Stop(Exception):
    pass


def interrupted(own, config, after_steps, monkeypatch):
    """Train until some number of steps, and fall over."""
    original = TrainingRun._after_step

    def after_step(run, done, phase):
        if run.trainer.step == after_steps:
            raise Stop
        return original(run, done, phase)

    with monkeypatch.context() as patched, pytest.raises(Stop):
        patched.setattr(TrainingRun, "_after_step", after_step)
        train(own, config)


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"test": {"points_per_epoch": 3}},
        {"optimizer": {"learning_rate": 1e-3, "tables": "adam", "max_gradient_norm": 1.0}},
        {"optimizer": {"tables": "rowwise_adagrad", "table_multiplier": 50, "frequency_adaptive": {}}},
        {"optimizer": {"tables": "lazy_adam", "frequency_adaptive": {"counts": "precomputed"}}},
    ],
)
def test_going_on_gives_the_same_bits(joined, own, tmp_path, changes, monkeypatch):
    config = recipe(**changes)
    whole = train(copy_examples(joined, str(tmp_path / "whole")), config)
    for after_steps in (13, 29, 45):
        interrupted(own, config, after_steps, monkeypatch)
    assert train(own, config) == whole
    for name in ("optimizer.safetensors", "loss_curve.json"):
        uris = [Store(str(tmp_path / kind)).checkpoint("x", own.batch_days[2]) for kind in ("own", "whole")]
        assert storage.read_bytes(f"{uris[0]}/{name}") == storage.read_bytes(f"{uris[1]}/{name}")
    assert not storage.list_names(own.store.resume_points("x", own.batch_days[2]))


PROGRAM = """
import json, sys
from datetime import date
from components.features.feature_list import FeatureConfig
from components.train.config import TrainConfig
from components.train.one_model import train_batch
root, features, train, days = map(json.loads, sys.argv[1:])
parsed = FeatureConfig.parse(features, "features"), TrainConfig.parse(train, "train")
print(train_batch(root, "x", *parsed, [date.fromisoformat(day) for day in days]))
"""


def test_killed_at_any_moment_gives_the_same_bits(joined, own, tmp_path):
    """SIGKILL at random moments, until a run gets through."""
    config = recipe(execution={"resume_steps": 1})
    whole = train(copy_examples(joined, str(tmp_path / "whole")), config)
    values = (own.store.root, own.config.features.model_dump(mode="json"), config.model_dump(mode="json"))
    arguments = [json.dumps(value) for value in (*values, [str(day) for day in own.batch_days[:3]])]
    killed, waits = 0, random.Random(5)
    points = own.store.resume_points("x", own.batch_days[2])
    while True:
        process = subprocess.Popen([sys.executable, "-W", "ignore", "-c", PROGRAM, *arguments], stdout=subprocess.PIPE)
        before = storage.list_names(points)
        # Killed soon after the next point appears, or in the middle of writing one.
        while process.poll() is None and storage.list_names(points) == before and killed < 4:
            time.sleep(0.01)
        if killed >= 4:
            break
        time.sleep(waits.uniform(0, 0.2))
        if process.poll() is not None:
            break
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        killed += 1
    assert process.communicate()[0].decode().splitlines()[-1] == whole
    assert killed >= 2, "it was over too soon to be killed"


def test_points_are_pruned_and_a_damaged_one_is_passed_over(own, monkeypatch, capsys):
    config = recipe(execution={"resume_steps": 4, "keep_resume_points": 2})
    interrupted(own, config, 19, monkeypatch)
    root = own.store.resume_points("x", own.batch_days[2])
    assert storage.list_names(root) == ["step=000000012", "step=000000016"]
    storage.write_bytes(f"{root}/step=000000016/model.safetensors", b"half of it")
    capsys.readouterr()
    train(own, config)
    said = capsys.readouterr().out
    assert "going on from the point before it" in said and "goes on after step 12" in said


def test_points_of_another_recipe_make_room(own, monkeypatch, capsys):
    """They neither count for the new run nor crowd out its points."""
    interrupted(own, recipe(execution={"resume_steps": 10}), 35, monkeypatch)
    other = recipe(seed=1, execution={"resume_steps": 2})
    interrupted(own, other, 9, monkeypatch)
    assert storage.list_names(own.store.resume_points("x", own.batch_days[2])) == ["step=000000008"]
    capsys.readouterr()
    train(own, other)
    assert "goes on after step 8" in capsys.readouterr().out


def test_points_of_another_recipe_do_not_count(own, monkeypatch, capsys):
    interrupted(own, recipe(), 19, monkeypatch)
    capsys.readouterr()
    train(own, recipe(seed=1))
    assert "goes on" not in capsys.readouterr().out


def test_another_way_of_running_is_the_same_recipe(own, capsys):
    first = train(own, recipe())
    capsys.readouterr()
    assert train(own, recipe(execution={"resume_minutes": 1})) == first
    assert "nothing to do" in capsys.readouterr().out


def curve(own, name):
    return json.loads(storage.read_bytes(f"{own.store.checkpoint('x', own.batch_days[2])}/{name}"))


def test_test_loss_is_that_of_the_next_day_before_training_on_it(own):
    train(own, recipe(test={"points_per_epoch": 4}))
    points = curve(own, "test_curve.json")
    assert [point["epoch"] for point in points] == [0] * 4 + [1] * 4
    manifest = read_manifest(own.store.checkpoint("x", own.batch_days[2]), CheckpointManifest)
    assert manifest.lineage.step > points[-1]["step"], "the tested day is trained on in the end"
    jumps = list(manifest.jumps_percent)
    assert jumps == boundary_jumps(points) and len(jumps) == 1
    assert jumps[0]["click"] == pytest.approx((points[4]["click"] / points[3]["click"] - 1) * 100)
    # The same net without the tested day, tested by hand.
    state, _ = load_state(own.store, "x", own.batch_days[2])
    train_batch(own.store.root, "y", own.config.features, recipe(), own.batch_days[:2])
    alone, _ = load_state(own.store, "y", own.batch_days[1])
    from components.features.examples import TRAINING, read_examples
    from components.ranker.dataset import tensors_of

    unseen = tensors_of(read_examples(own.store, TRAINING, own.batch_days[2])[0], state.features, unsampled=False)
    _, losses = alone.model.eval().loss(unseen.batch(slice(None)), alone.model.net.wide.bias.new_ones(6))
    assert [points[-1][name] for name in OBJECTIVE_NAMES] == pytest.approx(losses.tolist(), rel=1e-5)


def test_early_stopping_goes_back_to_the_best(own, capsys):
    optimizer = {"learning_rate": 5e-3, "table_multiplier": 50, "tables": "lazy_adam"}
    config = recipe(epochs=6, optimizer=optimizer, test={"points_per_epoch": 5, "patience": 3})
    train(own, config)
    points = curve(own, "test_curve.json")
    totals = [sum(point[name] for name in OBJECTIVE_NAMES) for point in points]
    best = totals.index(min(totals))
    assert len(points) == best + 4 < 30
    manifest = read_manifest(own.store.checkpoint("x", own.batch_days[2]), CheckpointManifest)
    assert manifest.stopped_early
    assert f"goes back to step {points[best]['step']}" in capsys.readouterr().out
    one_day = -(-read_manifest(own.store.examples("training", own.batch_days[2]), ExamplesManifest).rows // 64)
    assert manifest.lineage.step == points[best]["step"] + one_day


@pytest.mark.parametrize("resume_steps", [1, 4])
def test_early_stopping_survives_a_kill_at_any_step(joined, own, tmp_path, monkeypatch, resume_steps):
    optimizer = {"learning_rate": 5e-3, "table_multiplier": 50, "tables": "lazy_adam"}
    test = {"points_per_epoch": 5, "patience": 2}
    config = recipe(epochs=3, optimizer=optimizer, test=test, execution={"resume_steps": resume_steps})
    whole = train(copy_examples(joined, str(tmp_path / "whole")), config)
    stopped_at = curve(replace(own, store=Store(str(tmp_path / "whole"))), "test_curve.json")[-1]["step"]
    for after_steps in (stopped_at - 5, stopped_at - 1, stopped_at):
        interrupted(own, config, after_steps, monkeypatch)
    assert train(own, config) == whole


def test_best_is_taken_when_epochs_run_out(own):
    optimizer = {"learning_rate": 5e-3, "table_multiplier": 50, "tables": "lazy_adam"}
    train(own, recipe(epochs=2, optimizer=optimizer, test={"points_per_epoch": 5, "patience": 9}))
    points = curve(own, "test_curve.json")
    totals = [sum(point[name] for name in OBJECTIVE_NAMES) for point in points]
    manifest = read_manifest(own.store.checkpoint("x", own.batch_days[2]), CheckpointManifest)
    assert len(points) == 10 and not manifest.stopped_early
    one_day = -(-read_manifest(own.store.examples("training", own.batch_days[2]), ExamplesManifest).rows // 64)
    assert manifest.lineage.step == points[totals.index(min(totals))]["step"] + one_day


def test_a_test_takes_a_day_to_test_on(own):
    with pytest.raises(InputError, match="two at least"):
        train_batch(own.store.root, "x", own.config.features, recipe(test={}), own.batch_days[:1])


def test_losses_are_there_for_tensorboard(own):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    train(own, recipe(test={"points_per_epoch": 2}))
    events = EventAccumulator(own.store.tensorboard("x", own.batch_days[2]))
    events.Reload()
    assert {f"{name}/{kind}" for name in OBJECTIVE_NAMES for kind in ("train", "test")} <= set(events.Tags()["scalars"])
    assert [event.step for event in events.Scalars("click/test")] == [p["step"] for p in curve(own, "test_curve.json")]
