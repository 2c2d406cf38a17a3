"""Two processes with parts of the tables train as one does with all of them."""

from __future__ import annotations

import logging
import os

import numpy as np
import pytest
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
from components.tables.embeddings import redraw_rows
from components.tables.optimizer import ModelOptimizer
from components.tables.row_exchange import Shard, ShardLayout
from components.tables.sharded_state import gather_state, local_state
from components.tables.sharding import plan_lines, shard
from components.tables.sparse_ids import make_sparse
from components.train.trainer import sharded_loss

WORLD_SIZE, BATCH_SIZE, STEPS = 2, 64, 100
KINDS = ("table_wise", "row_wise")
CPU, WEIGHTS = torch.device("cpu"), torch.tensor([1.0, 0.5, 2.0, 1.0, 0.0, 3.0])
# The parts of a batch are unequal, so that only denominators of the whole batch give its loss.
PARTS = (slice(0, 40), slice(40, BATCH_SIZE))

FEATURES = FeatureConfig.parse(
    {
        "categorical": [
            {"name": "user_id", "num_rows": 501},
            {"name": "item_id", "num_rows": 200},
            {"name": "surface", "num_rows": 3},
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


class OneProcess:
    """A ranker with all tables."""

    def __init__(self, checkpoint=None):
        torch.manual_seed(0)
        self.model = Ranker(FEATURES, MODEL)
        self.model.net.normalize.fit(Moments.of(batch_of(0).dense))
        self.optimizer = ModelOptimizer(self.model, OPTIMIZER)
        if checkpoint is not None:
            self.model.load_state_dict(checkpoint[0])
            self.optimizer.load_state_tensors(checkpoint[1])

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

    def checkpoint(self):
        """Copies of the model's and the optimizer's tensors."""
        states = (self.model.state_dict(), self.optimizer.state_tensors())
        return tuple({name: value.clone() for name, value in state.items()} for state in states)

    def evaluate(self, step):
        """Logits of this process's rows."""
        self.model.eval()
        with torch.no_grad():
            return self.model(batch_of(step))


class TwoProcesses(OneProcess):
    """A ranker with this process's part of the tables."""

    def __init__(self, kind, checkpoint=None):
        torch.manual_seed(0)
        model = Ranker(FEATURES, MODEL)
        # The net of rank 0 counts, with what it was fitted on.
        model.net.normalize.fit(Moments.of(batch_of(distributed.get_rank()).dense))
        model.net.wide.bias.data += distributed.get_rank()
        if checkpoint is not None:
            model.load_state_dict(checkpoint[0])
        self.parallel = shard(model, FEATURES, BATCH_SIZE // WORLD_SIZE, ShardingConfig(kinds=(kind,)), CPU)
        self.model = self.parallel.module
        self.optimizer = ModelOptimizer(self.model, OPTIMIZER)
        if checkpoint is not None:
            self.optimizer.load_state_tensors(local_state(checkpoint[1], self.optimizer, self.model.embeddings))

    def loss(self, step):
        return sharded_loss(self.parallel, batch_of(step, PARTS[distributed.get_rank()]), WEIGHTS)

    def checkpoint(self):
        state = gather_state(self.parallel, self.optimizer)
        return state and tuple({name: value.clone() for name, value in part.items()} for part in state)

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
    half = torch.load(f"{folder}/half.pt")
    for kind in KINDS:
        run = TwoProcesses(kind)
        found = {"plan": plan_lines(run.parallel), "held": len(run.model.embeddings.weight)}
        found["losses"] = run.train(0, STEPS // 2)
        found["half"] = run.checkpoint()
        found["losses"] = torch.cat([found["losses"], run.train(STEPS // 2, STEPS)])
        found["end"], found["logits"] = run.checkpoint(), run.evaluate(STEPS)
        found["row_counts"] = run.model.embeddings.row_counts(batch_of(STEPS).sparse)
        run.optimizer.start_epoch(1, seed=3)
        found["redrawn"] = run.checkpoint()
        resumed = TwoProcesses(kind, half)
        resumed.train(STEPS // 2, STEPS)
        found["resumed"] = resumed.checkpoint()
        torch.save(found, f"{folder}/{kind}{rank}.pt")
    try:
        shard(Ranker(FEATURES, MODEL), FEATURES, BATCH_SIZE, ShardingConfig(memory_gib=1e-6), CPU)
    except InputError as error:
        torch.save(str(error), f"{folder}/refused{rank}.pt")
    distributed.destroy_process_group()


@pytest.fixture(scope="module")
def one():
    """One process: halfway, at the end, and after the next epoch's redraw."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    run = OneProcess()
    found = {"losses": run.train(0, STEPS // 2), "half": run.checkpoint()}
    found["losses"] = torch.cat([found["losses"], run.train(STEPS // 2, STEPS)])
    found["end"], found["logits"] = run.checkpoint(), run.evaluate(STEPS)
    run.optimizer.start_epoch(1, seed=3)
    found["redrawn"] = run.checkpoint()
    yield found
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def two(one, tmp_path_factory):
    """What both processes found, by kind and rank."""
    folder = tmp_path_factory.mktemp("sharding")
    torch.save(one["half"], folder / "half.pt")
    os.environ["OMP_NUM_THREADS"] = "1"
    multiprocessing.spawn(train_in_part, (str(folder),), WORLD_SIZE)
    found = {kind: [torch.load(folder / f"{kind}{rank}.pt") for rank in range(WORLD_SIZE)] for kind in KINDS}
    return found | {"refused": [torch.load(folder / f"refused{rank}.pt") for rank in range(WORLD_SIZE)]}


def assert_same(found, expected):
    for part, whole in zip(found, expected, strict=True):
        assert part.keys() == whole.keys()
        for name, value in whole.items():
            assert part[name].dtype == value.dtype, name
            exact = {"rtol": 0, "atol": 0 if not value.is_floating_point() else 1e-5}
            torch.testing.assert_close(part[name], value, **exact, msg=lambda text, name=name: f"{name}: {text}")


@pytest.mark.parametrize("kind", KINDS)
def test_shards_train_as_one_process(one, two, kind):
    for rank in range(WORLD_SIZE):
        torch.testing.assert_close(two[kind][rank]["losses"], one["losses"], rtol=0, atol=1e-5)
    assert_same(two[kind][0]["end"], one["end"])
    moved = one["end"][0]["embeddings.weight"] - one["half"][0]["embeddings.weight"]
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
def test_checkpoint_goes_on_in_another_number_of_processes(one, two, kind):
    fewer = OneProcess(two[kind][0]["half"])
    fewer.train(STEPS // 2, STEPS)
    assert_same(fewer.checkpoint(), one["end"])
    assert_same(two[kind][0]["resumed"], one["end"])


@pytest.mark.parametrize("kind", KINDS)
def test_redrawn_rows_are_those_of_one_process(one, two, kind):
    before, after = one["end"][0]["embeddings.weight"], one["redrawn"][0]["embeddings.weight"]
    share = (before != after).any(dim=1).float().mean()
    assert 0.2 < share < 0.9
    assert_same(two[kind][0]["redrawn"], one["redrawn"])
    redrawn = (before != after).any(dim=1)
    assert torch.equal(two[kind][0]["redrawn"][0]["embeddings.weight"][redrawn], after[redrawn])


@pytest.mark.parametrize("kind", KINDS)
def test_each_process_counts_its_rows_of_all_look_ups(two, kind):
    looked_up = OneProcess().model.embeddings.layout.rows(batch_of(STEPS).sparse)
    counts = torch.cat([two[kind][rank]["row_counts"][1] for rank in range(WORLD_SIZE)])
    assert counts.sum() == len(looked_up)
    assert len(counts) == len(looked_up.unique())


def test_tables_that_do_not_fit_are_refused_everywhere(two):
    assert all("no sharding plan" in message for message in two["refused"])


def test_redraw_is_the_same_in_parts():
    whole, rows = torch.zeros(140_000, 2), torch.arange(140_000) % 3 > 0
    redraw_rows(whole, rows, 0, 0.1, (3, 1))
    parts = torch.zeros(140_000, 2)
    for part in (slice(0, 65_000), slice(65_000, 65_001), slice(65_001, 140_000)):
        redraw_rows(parts[part], rows[part], part.start, 0.1, (3, 1))
    assert torch.equal(parts, whole) and not whole[~rows].any()
    assert 0.099 < whole[rows].std() < 0.101 and len(whole[rows].unique(dim=0)) == rows.sum()


def test_layout_finds_owners_past_empty_shards():
    shards = [Shard(5, 2, 1, "b"), Shard(0, 3, 2, "a"), Shard(3, 0, 0, "a"), Shard(3, 2, 1, "a")]
    layout = ShardLayout(shards, CPU)
    ranks, places = layout.owners(torch.arange(7))
    assert ranks.tolist() == [2, 2, 2, 1, 1, 1, 1]
    assert places.tolist() == [0, 1, 2, 0, 1, 2, 3]
    full = torch.arange(7)
    assert layout.take(full, 1).tolist() == [3, 4, 5, 6] and layout.take(full, 0).tolist() == []
