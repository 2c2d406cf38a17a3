"""`afterclick train`, alone and under torchrun, on a store that the pipelines' steps have filled."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import numpy as np
import pytest
import torch
import yaml

from components.common import parquet_files, storage
from components.common.layout import Store
from components.train.training_state import load_state
from tests.conftest import every_kind, with_every_kind, write_vectors
from tests.unit.train.test_run import copy_examples

OPTIMIZER = {"learning_rate": 1e-3, "table_multiplier": 50, "tables": "lazy_adam", "frequency_adaptive": {}}


def run(*arguments, launcher=("-m", "cli.main")):
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "COLUMNS": "160"}
    done = subprocess.run(
        [sys.executable, "-W", "ignore", *launcher, *map(str, arguments)],
        capture_output=True,
        text=True,
        env=environment,
        check=False,
    )
    assert done.returncode == 0, done.stderr[:4000]
    return done.stdout


RECIPES = {
    # At 50 times the net's rate, what sums in another order differ by grows beyond any bound within two epochs.
    "lazy_adam": {"optimizer": {**OPTIMIZER, "table_multiplier": 10.0}, "epochs": 2, "test": {"points_per_epoch": 2}},
    "rowwise_adagrad": {
        "optimizer": {
            "tables": "rowwise_adagrad",
            "table_multiplier": 50,
            "frequency_adaptive": {"counts": "precomputed"},
        },
        "execution": {"resume_steps": 9, "sharding": {"kinds": ["table_wise"]}},
    },
}


@pytest.fixture(scope="module")
def config_paths(joined, tmp_path_factory):
    """The configuration of the shared deployment with other recipes, by name."""
    folder, paths = tmp_path_factory.mktemp("config"), {}
    vectors = write_vectors(folder)
    for name, changes in RECIPES.items():
        values = joined.config.model_dump(mode="json", exclude_none=True)
        values |= {"features": every_kind(values["features"]), "vectors": vectors}
        values["train"] = values["arms"]["baseline"] | {"pool_rows": 700} | changes
        values["arms"] = {"baseline": {"optimizer": {"table_multiplier": 1}}, "sparse_optimizer": {}}
        paths[name] = folder / f"{name}.yaml"
        paths[name].write_text(yaml.safe_dump(values))
    return paths


def own_store(joined, root):
    return copy_examples(joined, str(root)).store


def trained(joined, config_path, root, launcher):
    store = own_store(joined, root)
    shared = ("train", "--config", config_path, "--store", store.root, "--arm", "sparse_optimizer")
    said = run(*shared, launcher=launcher) + run(*shared, "--day", joined.scored_day, launcher=launcher)
    return store, said


@pytest.mark.parametrize("name", RECIPES)
def test_processes_train_what_one_trains(joined, config_paths, tmp_path, name):
    config_path = config_paths[name]
    alone, said = trained(joined, config_path, tmp_path / "one", ("-m", "cli.main"))
    torchrun = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m", "cli.main")
    spread, said_by_two = trained(joined, config_path, tmp_path / "two", torchrun)
    assert said.count("train.checkpoint:") == said_by_two.count("train.checkpoint:") == 2
    for day in (joined.batch_days[-1], joined.scored_day):
        one, _ = load_state(alone, "sparse_optimizer", day)
        two, _ = load_state(spread, "sparse_optimizer", day)
        assert one.lineage.step == two.lineage.step
        for name, value in one.model.state_dict().items():
            torch.testing.assert_close(two.model.state_dict()[name], value, rtol=0, atol=1e-4, msg=name)
        curves = [
            json.loads(storage.read_bytes(f"{s.checkpoint('sparse_optimizer', day)}/loss_curve.json"))
            for s in (alone, spread)
        ]
        for left, right in zip(*curves, strict=True):
            assert list(left.values()) == pytest.approx(list(right.values()), abs=1e-5)


def test_tables_are_described(joined, config_paths, tmp_path):
    config_path = config_paths["lazy_adam"]
    store = own_store(joined, tmp_path)
    run("train", "--config", config_path, "--store", store.root, "--arm", "sparse_optimizer")
    (tmp_path / "logs").mkdir()
    (tmp_path / "logs" / "impressions").mkdir()
    facts = {one["table"]: one for one in json.loads(run("show", "--tables", "--json", "--store", store.root))}
    assert facts.keys() == with_every_kind(joined).config.features.tables.keys()
    ids = np.unique(
        np.concatenate([parquet_files.read_parquet(uri)["user_id"].to_numpy() for uri in example_files(joined, store)])
    )
    users = facts["user_id"]
    assert users["ids_seen"] == len(ids)
    rows, counts = np.unique(ids % 2048, return_counts=True)
    assert (users["ids_in_one"], users["rows_used"]) == (counts[counts > 1].sum(), len(rows))
    assert users["megabytes"] == pytest.approx(2048 * 8 * 4 / 1e6) and users["training_megabytes"] == pytest.approx(
        2048 * (3 * 8 * 4 + 4) / 1e6
    )
    assert "ids not told apart" in run("show", "--tables", "--store", store.root)


def example_files(joined, store: Store):
    for day in joined.batch_days:
        uri = store.examples("training", day)
        yield from (f"{uri}/{name}" for name in storage.list_names(uri) if name.endswith(".parquet"))
