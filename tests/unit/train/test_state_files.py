"""A checkpoint of eight processes is that of one, and loads in three; nobody needs all rows."""

from __future__ import annotations

from datetime import date
from functools import partial
from pathlib import Path

import pytest
import safetensors.torch
import torch

from components.common.errors import InputError
from components.common.layout import Store
from components.common.lineage import Lineage
from components.common.manifests import Step
from components.features.feature_list import FeatureConfig
from components.ranker.checkpoint import TrainedRanker, find_checkpoint
from components.tables import embeddings, state_files
from components.tables.processes import ALONE, Process
from components.tables.rows import RowGradients
from components.train.config import TrainConfig
from components.train.training_state import TrainingState, load_state, new_state, write_checkpoint
from tests.processes import in_processes

DAY, NEXT = date(2026, 3, 1), date(2026, 3, 2)
FEATURES = FeatureConfig.parse(
    {
        "categorical": [{"name": "user_id", "num_rows": 1_003}, {"name": "item_id", "num_rows": 400}],
        "sequence": {"length": 3, "entities": ["item_id"], "action_types": ["click"]},
    },
    "features",
)
RECIPE = {
    "batch_size": 64,
    "model": {"embedding_dim": 8, "sequence_dim": 8, "hidden_sizes": [16], "head_size": 4},
    "optimizer": {"tables": "lazy_adam", "frequency_adaptive": {}, "bias_correction": "row"},
}


def recipe(kind: str = "row_wise") -> TrainConfig:
    return TrainConfig.parse({**RECIPE, "execution": {"sharding": {"kinds": [kind]}}}, "train")


def lineage(day: date) -> Lineage:
    return Lineage(arm="x", first_day=DAY, trained_through=day, parent="", step=0, negative_keep_rate=1.0)


def cut_small(process: Process) -> None:
    """Files of 100 rows, and draws of 64, so that these tables have many."""
    state_files.FILE_BYTES, embeddings._BLOCK_ROWS = 100 * 8 * 4, 64


def take_step(state: TrainingState) -> None:
    """Update every row by what its number says, whoever holds it."""
    assert state.optimizer.tables is not None
    held = state.of_model.held
    numbers = torch.zeros(held.num_rows, dtype=torch.int64)
    held.put(numbers, torch.arange(held.shards.num_rows), 0)
    sums = torch.sin(numbers[:, None] + torch.arange(8.0))
    state.optimizer.tables.step(RowGradients(torch.arange(held.num_rows), numbers % 7 + 1, sums))


def write_new(root: str, process: Process, kind: str = "row_wise") -> None:
    state = new_state(FEATURES, recipe(kind), lineage(DAY), process)
    take_step(state)
    write_checkpoint(Store(root), state, Step("test").origin(), {"curve.json": []}, {})


def write_again(root: str, process: Process) -> None:
    state, digest = load_state(Store(root), "x", DAY, process, recipe().execution)
    assert state.of_model.held.num_rows < 0.4 * sum(FEATURES.tables.values())
    state.lineage = Lineage(**{**lineage(NEXT).model_dump(), "parent": digest})
    write_checkpoint(Store(root), state, Step("test").origin(), {"curve.json": []}, {})


def break_one(root: str, process: Process) -> None:
    """A weight that is not finite on one process stops all."""
    state = new_state(FEATURES, recipe(), lineage(NEXT), process)
    if process.share.rank == 1:
        with torch.no_grad():
            state.model.embeddings.weight[0, 0] = float("nan")
    with pytest.raises(FloatingPointError, match="1 weights such as embeddings.weight"):
        write_checkpoint(Store(root), state, Step("test").origin(), {}, {})


@pytest.fixture(scope="module")
def roots(tmp_path_factory):
    """Stores with a checkpoint of one process, of eight by rows, which three wrote again, and of three by tables."""
    folder = tmp_path_factory.mktemp("checkpoints")
    roots = {name: str(folder / name) for name in ("one", "eight", "whole_tables")}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(state_files, "FILE_BYTES", state_files.FILE_BYTES)
        patch.setattr(embeddings, "_BLOCK_ROWS", embeddings._BLOCK_ROWS)
        cut_small(ALONE)
        write_new(roots["one"], ALONE)
    in_processes(__name__, 8, folder / "8", cut_small, partial(write_new, roots["eight"]))
    in_processes(
        __name__,
        3,
        folder / "3",
        cut_small,
        partial(write_again, roots["eight"]),
        partial(write_new, roots["whole_tables"], kind="table_wise"),
        partial(break_one, roots["whole_tables"]),
    )
    return roots


def content(root: str, day: date = DAY) -> dict[str, str]:
    checkpoint = find_checkpoint(Store(root), "x", day)
    assert checkpoint is not None
    return {entry.name: entry.sha256 for entry in checkpoint.files}


def test_any_number_of_processes_writes_the_same_bytes(roots):
    one = content(roots["one"])
    total = sum(FEATURES.tables.values())
    assert len([name for name in one if name.startswith("model")]) == -(-total // 100) and "curve.json" in one
    assert content(roots["eight"]) == one
    assert content(roots["whole_tables"]) == one


def test_checkpoint_of_eight_loads_in_three(roots):
    assert content(roots["eight"], NEXT) == content(roots["eight"])


def test_files_in_parts_hold_what_one_file_would(roots):
    state, digest = load_state(Store(roots["eight"]), "x", DAY)
    expected = new_state(FEATURES, recipe(), lineage(DAY))
    take_step(expected)
    for found, wanted in (
        (state.model.state_dict(), expected.model.state_dict()),
        (state.optimizer.state_tensors(), expected.optimizer.state_tensors()),
    ):
        assert all(torch.equal(found[name].double(), wanted[name].double()) for name in wanted)
    ranker = TrainedRanker.load(Store(roots["eight"]), "x", DAY)
    assert torch.equal(ranker.model.embeddings.weight, expected.model.embeddings.weight)
    checkpoint = find_checkpoint(Store(roots["eight"]), "x", DAY)
    assert checkpoint is not None and checkpoint.checkpoint_digest == digest
    assert digest not in content(roots["eight"]).values()


@pytest.mark.parametrize("damage", ["absent", "changed"])
def test_damaged_part_is_named(roots, damage):
    cut = Path(Store(roots["one"]).checkpoint("x", DAY))
    path = cut / "model-00003.safetensors"
    before = path.read_bytes()
    if damage == "absent":
        path.unlink()
    else:
        path.write_bytes(before[:-1] + b"\0\0")
    try:
        with pytest.raises(InputError, match=r"model-00003\.safetensors"):
            load_state(Store(roots["one"]), "x", DAY)
    finally:
        path.write_bytes(before)


def test_small_model_is_one_file(tmp_path):
    write_new(str(tmp_path), ALONE)
    assert sorted(content(str(tmp_path))) == ["curve.json", "model.safetensors", "optimizer.safetensors"]
    checkpoint = find_checkpoint(Store(str(tmp_path)), "x", DAY)
    assert checkpoint is not None
    assert checkpoint.checkpoint_digest == content(str(tmp_path))["model.safetensors"]
    weights = safetensors.torch.load_file(Path(Store(str(tmp_path)).checkpoint("x", DAY), "model.safetensors"))
    assert len(weights["embeddings.weight"]) == sum(FEATURES.tables.values())
