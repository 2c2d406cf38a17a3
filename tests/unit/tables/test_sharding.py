"""Two processes with parts of the tables train as one does with all of them."""

from __future__ import annotations

import logging
import os
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch
from torch import distributed, multiprocessing

from components.common.errors import InputError
from components.features.feature_list import FeatureConfig
from components.features.objectives import OBJECTIVES
from components.ranker.batch import Batch
from components.ranker.config import ModelConfig
from components.ranker.feature_processing import Moments
from components.ranker.ranker import Ranker
from components.tables.config import OptimizerConfig, ShardingConfig
from components.tables.optimizer import ModelOptimizer
from components.tables.processes import Process, Share
from components.tables.shard_layout import HeldRows
from components.tables.sharding import plan_lines, shard
from components.tables.sparse_ids import make_sparse
from components.tables.state_files import read_state, write_state
from components.tables.table_model import TABLES_WEIGHT
from components.train.trainer import sharded_loss

WORLD_SIZE, BATCH_SIZE, STEPS = 2, 64, 100
KINDS = ("table_wise", "row_wise")
CPU, WEIGHTS = torch.device("cpu"), torch.tensor([1.0, 0.5, 2.0, 1.0, 0.0, 3.0])
# The parts of a batch are unequal, so that only denominators of the whole batch give its loss.
PARTS = (slice(0, 40), slice(40, BATCH_SIZE))

FEATURES = FeatureConfig.parse(
    {
        "categorical": [
            {"name": name, "num_rows": rows} for name, rows in (("user_id", 501), ("item_id", 200), ("surface", 3))
        ],
        "sequence": {"length": 5, "entities": ["item_id"], "action_types": ["click"]},
        "counts": {"entities": ["item_id"], "action_types": ["click"], "windows_days": [7]},
        "engagement": {"entities": ["item_id"]},
    },
    "features",
)
MODEL = ModelConfig(embedding_dim=8, sequence_dim=8, hidden_sizes=(16,), head_size=4)
OPTIMIZER = OptimizerConfig.parse(
    {
        "tables": "lazy_adam",
        "table_multiplier": 50.0,
        "frequency_adaptive": {},
        "bias_correction": "row",
        "reinitialize": {"keep_above": 40},
    },
    "optimizer",
)


def batch_of(step, rows=slice(None)):
    """Some rows of a step's batch, the same in every process."""
    generator = np.random.default_rng(step)
    sizes = [feature.num_rows for feature in FEATURES.categorical]
    categorical = np.stack([generator.zipf(1.3, BATCH_SIZE) % size for size in sizes], axis=1)
    tables = [FEATURES.tables[FEATURES.sequence_table(name)] for name in FEATURES.sequence_names]
    sequence = np.stack([generator.zipf(1.3, (BATCH_SIZE, 5)) % size for size in tables], axis=2)
    lengths = generator.integers(0, 6, BATCH_SIZE)
    dense = torch.from_numpy(generator.normal(size=(BATCH_SIZE, len(FEATURES.dense_names))).astype(np.float32))
    shape = (BATCH_SIZE, len(OBJECTIVES))
    labels = torch.from_numpy((generator.random(shape) < 0.3).astype(np.float32))
    masks = torch.from_numpy((generator.random(shape) < [1, 0.9, 0.3, 0.2, 0.8, 0.02]).astype(np.float32))
    ids = [torch.from_numpy(values)[rows] for values in (categorical, sequence, lengths)]
    return Batch(make_sparse(FEATURES, *ids), dense[rows], labels[rows], masks[rows])


def made(held=None):
    torch.manual_seed(0)
    return Ranker(FEATURES, MODEL, held)


class OneProcess:
    """A ranker with all tables."""

    def __init__(self, checkpoint=None):
        self.model = made()
        self.model.net.normalize.fit(Moments.of(batch_of(0).dense))
        self.optimizer = ModelOptimizer(self.model, OPTIMIZER)
        if checkpoint is not None:
            self.load(checkpoint)

    def train(self, first, last):
        """Losses of the steps."""
        self.model.train()
        losses = []
        for step in range(first, last):
            self.optimizer.zero_grad()
            total, means = self.loss(step)
            total.backward()
            self.optimizer.step()
            losses.append(means.detach())
        return torch.stack(losses)

    def loss(self, step):
        return self.model.loss(batch_of(step), WEIGHTS)

    @property
    def held(self):
        return HeldRows.alone(FEATURES)

    def checkpoint(self, folder):
        """Write the model's and the optimizer's tensors."""
        os.makedirs(folder, exist_ok=True)
        write_state(str(folder), "model.safetensors", self.model.state_dict(), TABLES_WEIGHT.__eq__, self.held)
        moments = self.optimizer.state_tensors()
        write_state(str(folder), "optimizer.safetensors", moments, self.optimizer.is_by_row, self.held)
        return folder

    def load(self, folder):
        def read(name):
            return Path(folder, name).read_bytes()

        weights, moments = self.model.state_dict(), self.optimizer.state_tensors()
        weights = read_state(read, "model.safetensors", TABLES_WEIGHT.__eq__, self.held, weights)
        moments = read_state(read, "optimizer.safetensors", self.optimizer.is_by_row, self.held, moments)
        self.model.load_state_dict(weights)
        self.optimizer.load_state_tensors(moments)

    def evaluate(self, step):
        """Logits of this process's rows."""
        self.model.eval()
        with torch.no_grad():
            return self.model(batch_of(step))


class TwoProcesses(OneProcess):
    """A ranker with this process's part of the tables."""

    def __init__(self, kind, checkpoint=None):
        self.parallel = shard(made, FEATURES, BATCH_SIZE // WORLD_SIZE, ShardingConfig(kinds=(kind,)), CPU)
        self.model, rank = self.parallel.module, distributed.get_rank()
        # The net of rank 0 counts, with what it was fitted on.
        self.model.net.normalize.fit(Moments.of(batch_of(rank).dense))
        self.model.net.wide.bias.data += rank
        Process(CPU, Share(rank, WORLD_SIZE)).copy_from_first(self.model.net.state_dict().values())
        self.optimizer = ModelOptimizer(self.model, OPTIMIZER)
        if checkpoint is not None:
            self.load(checkpoint)

    @property
    def held(self):
        return self.model.embeddings.held

    def loss(self, step):
        return sharded_loss(self.parallel, batch_of(step, PARTS[distributed.get_rank()]), WEIGHTS)

    def evaluate(self, step):
        self.parallel.eval()
        with torch.no_grad():
            return self.parallel(batch_of(step, PARTS[distributed.get_rank()]))


def train_in_part(rank, folder):
    """What each process does for all tests; writes what it finds for the parent to compare."""
    torch.set_num_threads(1)
    logging.disable(logging.WARNING)
    options = {"rank": rank, "world_size": WORLD_SIZE}
    distributed.init_process_group("gloo", init_method=f"file://{folder}/meeting", **options)
    for kind in KINDS:
        run = TwoProcesses(kind)
        found = {"plan": plan_lines(run.parallel), "held": len(run.model.embeddings.weight)}
        found["losses"] = run.train(0, STEPS // 2)
        run.checkpoint(f"{folder}/{kind}-half")
        found["losses"] = torch.cat([found["losses"], run.train(STEPS // 2, STEPS)])
        run.checkpoint(f"{folder}/{kind}-end")
        found["logits"] = run.evaluate(STEPS)
        found["row_counts"] = run.model.embeddings.row_counts(batch_of(STEPS).sparse)
        run.optimizer.start_epoch(1, seed=3)
        run.checkpoint(f"{folder}/{kind}-redrawn")
        resumed = TwoProcesses(kind, f"{folder}/one-half")
        resumed.train(STEPS // 2, STEPS)
        resumed.checkpoint(f"{folder}/{kind}-resumed")
        torch.save(found, f"{folder}/{kind}{rank}.pt")
    try:
        shard(made, FEATURES, BATCH_SIZE, ShardingConfig(memory_gib=1e-6), CPU)
    except InputError as error:
        torch.save(str(error), f"{folder}/refused{rank}.pt")
    distributed.destroy_process_group()


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Where one process and two write their states: halfway, at the end, and after the next epoch's redraw."""
    return tmp_path_factory.mktemp("sharding")


@pytest.fixture(scope="module")
def one(folder):
    """What one process found."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    run = OneProcess()
    found = {"losses": run.train(0, STEPS // 2)}
    run.checkpoint(folder / "one-half")
    found["losses"] = torch.cat([found["losses"], run.train(STEPS // 2, STEPS)])
    run.checkpoint(folder / "one-end")
    found["logits"] = run.evaluate(STEPS)
    run.optimizer.start_epoch(1, seed=3)
    run.checkpoint(folder / "one-redrawn")
    yield found
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def two(one, folder):
    """What both processes found, by kind and rank."""
    os.environ["OMP_NUM_THREADS"] = "1"
    multiprocessing.spawn(train_in_part, (str(folder),), WORLD_SIZE)
    found = {kind: [torch.load(folder / f"{kind}{rank}.pt") for rank in range(WORLD_SIZE)] for kind in KINDS}
    return found | {"refused": [torch.load(folder / f"refused{rank}.pt") for rank in range(WORLD_SIZE)]}


def state_in(folder):
    """All tensors of a state."""
    return {
        f"{path.stem}:{name}": value
        for path in sorted(folder.iterdir())
        for name, value in safetensors.torch.load(path.read_bytes()).items()
    }


WEIGHT = f"model:{TABLES_WEIGHT}"


def assert_same(found, expected):
    part, whole = state_in(found), state_in(expected)
    assert {*part} == {*whole}
    for name, value in whole.items():
        assert part[name].dtype == value.dtype, name
        exact = {"rtol": 0, "atol": 0 if not value.is_floating_point() else 1e-5}
        torch.testing.assert_close(part[name], value, **exact, msg=lambda text, name=name: f"{name}: {text}")


@pytest.mark.parametrize("kind", KINDS)
def test_shards_train_as_one_process(one, two, folder, kind):
    for rank in range(WORLD_SIZE):
        torch.testing.assert_close(two[kind][rank]["losses"], one["losses"], rtol=0, atol=1e-5)
    assert_same(folder / f"{kind}-end", folder / "one-end")
    moved = state_in(folder / "one-end")[WEIGHT] - state_in(folder / "one-half")[WEIGHT]
    assert moved.abs().max() > 0.1
    logits = torch.cat([two[kind][rank]["logits"] for rank in range(WORLD_SIZE)])
    torch.testing.assert_close(logits, one["logits"], rtol=0, atol=1e-4)


def test_kinds_spread_differently(two):
    total = sum(FEATURES.tables.values())
    assert [two["row_wise"][rank]["held"] for rank in range(WORLD_SIZE)] == [total // 2 + 2, total // 2 - 1]
    assert "user_id: row_wise; rows by rank 0: 251, rank 1: 250" in two["row_wise"][1]["plan"]
    whole = two["table_wise"][0]["plan"]
    assert {line.partition(";")[2][:13] for line in whole} == {" rows by rank"}
    assert all("," not in line for line in whole) and 0 < two["table_wise"][0]["held"] < total
    assert sum(two["table_wise"][rank]["held"] for rank in range(WORLD_SIZE)) == total


@pytest.mark.parametrize("kind", KINDS)
def test_checkpoint_goes_on_in_another_number_of_processes(two, folder, kind, tmp_path):
    fewer = OneProcess(folder / f"{kind}-half")
    fewer.train(STEPS // 2, STEPS)
    assert_same(fewer.checkpoint(tmp_path / "fewer"), folder / "one-end")
    assert_same(folder / f"{kind}-resumed", folder / "one-end")


@pytest.mark.parametrize("kind", KINDS)
def test_redrawn_rows_are_those_of_one_process(two, folder, kind):
    before, after = (state_in(folder / f"one-{name}")[WEIGHT] for name in ("end", "redrawn"))
    redrawn = (before != after).any(dim=1)
    assert 0.2 < redrawn.float().mean() < 0.9
    assert_same(folder / f"{kind}-redrawn", folder / "one-redrawn")
    assert torch.equal(state_in(folder / f"{kind}-redrawn")[WEIGHT][redrawn], after[redrawn])


@pytest.mark.parametrize("kind", KINDS)
def test_each_process_counts_its_rows_of_all_look_ups(two, kind):
    looked_up = OneProcess().model.embeddings.layout.rows(batch_of(STEPS).sparse)
    counts = torch.cat([two[kind][rank]["row_counts"][1] for rank in range(WORLD_SIZE)])
    assert counts.sum() == len(looked_up)
    assert len(counts) == len(looked_up.unique())


def test_tables_that_do_not_fit_are_refused_everywhere(two):
    assert all("no sharding plan" in message for message in two["refused"])
