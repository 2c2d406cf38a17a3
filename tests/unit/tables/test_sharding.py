"""Two processes with parts of the tables train as one does with all of them."""

from __future__ import annotations

import logging
import os

import pytest
import safetensors.torch
import torch
from torch import distributed, multiprocessing
from torchrec.distributed.types import ShardingType

from components.common.errors import InputError
from components.tables.config import ShardingConfig
from components.tables.sharding import shard
from components.tables.table_model import TABLES_WEIGHT
from tests.unit.tables.spread_rankers import (
    BATCH_SIZE,
    CPU,
    FEATURES,
    KINDS,
    STEPS,
    WORLD_SIZE,
    OneProcess,
    TwoProcesses,
    batch_of,
    made,
)


def plan_lines(parallel):
    """How each table is spread, and how many rows each process holds."""
    lines = []
    for table, planned in parallel.plan.plan["embeddings"].items():
        parts = [f"rank {part.placement.rank()}: {part.shard_sizes[0]:,}" for part in planned.sharding_spec.shards]
        lines.append(f"{table}: {ShardingType(planned.sharding_type).value}; rows by {', '.join(parts)}")
    return lines


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
    doubles = slice(-FEATURES.tables["item_id"], None)
    assert moved[: doubles.start].abs().max() > 0.1 and not moved[doubles].any()
    gates = state_in(folder / "one-end")["model:net.gates.gates.0.weight"]
    assert gates.abs().max() > 1e-3
    logits = torch.cat([two[kind][rank]["logits"] for rank in range(WORLD_SIZE)])
    torch.testing.assert_close(logits, one["logits"], rtol=0, atol=1e-4)


def test_kinds_spread_differently(two):
    total = sum(FEATURES.tables.values()) + FEATURES.tables["item_id"]
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
    looked_up = torch.cat(OneProcess().model.embeddings.layout.rows(batch_of(STEPS).sparse))
    counts = torch.cat([two[kind][rank]["row_counts"][1] for rank in range(WORLD_SIZE)])
    assert counts.sum() == len(looked_up)
    assert len(counts) == len(looked_up.unique())


def test_tables_that_do_not_fit_are_refused_everywhere(two):
    assert all("no sharding plan" in message for message in two["refused"])
