"""A ranker trained with each optimizer of its tables: losses, checkpoints, redrawn tables, counts ahead."""

from __future__ import annotations

import shutil

import pytest
import torch

from components.common.layout import Store
from components.common.lineage import Lineage
from components.common.manifests import Step
from components.features.examples import TRAINING, read_examples
from components.ranker.dataset import tensors_of
from components.train.config import TrainConfig
from components.train.one_model import train_batch
from components.train.trainer import Trainer
from components.train.training_state import load_state, new_state, write_checkpoint


def recipe(joined, **optimizer):
    values = joined.config.arms["sparse_optimizer"].model_dump() | {"epochs": 2, "batch_size": 64}
    values["optimizer"] = values["optimizer"] | optimizer
    return TrainConfig.parse(values, "train")


def trained(joined, config, epochs=1):
    table, _ = read_examples(joined.store, TRAINING, joined.batch_days[0])
    examples = tensors_of(table, joined.config.features, unsampled=False)
    day = joined.batch_days[0]
    lineage = Lineage(arm="x", first_day=day, trained_through=day, parent="", step=0, negative_keep_rate=1.0)
    state = new_state(joined.config.features, config, lineage)
    trainer = Trainer(state.model, state.optimizer, config, "test")
    for epoch in range(epochs):
        trainer.train_epoch(examples.shuffled(64, epoch), len(examples), epoch)
    return state, trainer, examples


ROWS_OPTIMIZER = {"tables": "lazy_adam", "frequency_adaptive": {}, "bias_correction": "row"}


def test_lazy_adam_trains_as_well_as_dense_adam(joined):
    losses = {}
    for name, optimizer in (("adam", {}), ("lazy", {"tables": "lazy_adam"}), ("fal", ROWS_OPTIMIZER)):
        _, trainer, _ = trained(joined, recipe(joined, **optimizer), epochs=3)
        losses[name] = trainer.curve.points[-1]["click"]
    assert losses["lazy"] == pytest.approx(losses["adam"], rel=0.05)
    assert losses["fal"] == pytest.approx(losses["adam"], rel=0.1)


def test_checkpoint_of_lazy_adam_goes_on_bit_for_bit(joined, tmp_path):
    config = recipe(joined, **ROWS_OPTIMIZER)
    state, trainer, examples = trained(joined, config)
    store = Store(str(tmp_path))
    write_checkpoint(store, state, Step("test").origin(), {}, {})
    again, _ = load_state(store, "x", joined.batch_days[0])
    other = Trainer(again.model, again.optimizer, config, "test", trainer.step)
    loaded, written = again.optimizer.state_tensors(), state.optimizer.state_tensors()
    assert all(torch.equal(written[name].double(), loaded[name].double()) for name in written)
    for one in (trainer, other):
        one.train_epoch(examples.shuffled(64, 9), len(examples), 0)
    for name, value in state.model.state_dict().items():
        assert torch.equal(value, again.model.state_dict()[name]), name
    saved, found = state.optimizer.state_tensors(), again.optimizer.state_tensors()
    assert saved.keys() == found.keys() and "tables/row_frequency" in saved
    assert all(torch.equal(saved[name].view(-1).double(), found[name].view(-1).double()) for name in saved)


@pytest.mark.parametrize("tables", ["adam", "lazy_adam"])
def test_tables_are_redrawn_at_epoch_boundaries_only(joined, tables):
    config = recipe(joined, tables=tables, reinitialize={})
    state, _, _ = trained(joined, config)
    weight, net = state.model.embeddings.weight, state.model.net.wide.weight.clone()
    before = weight.detach().clone()
    state.optimizer.start_epoch(0, seed=1)
    assert torch.equal(weight, before)
    state.optimizer.start_epoch(1, seed=1)
    assert (weight != before).any(dim=1).all()
    assert torch.equal(net, state.model.net.wide.weight)
    assert weight.std().item() == pytest.approx(config.model.embedding_init, rel=0.05)
    moments = [v for name, v in state.optimizer.state_tensors().items() if "exp_avg" in name and len(v) == len(weight)]
    assert len(moments) == 2 and not any(value.any() for value in moments)
    steps = {name: v.item() for name, v in state.optimizer.state_tensors().items() if name.endswith("step")}
    assert steps.pop("tables/step" if tables == "lazy_adam" else "embeddings.weight/step") == 0
    assert set(steps.values()) == {-(-544 // 64)}


def test_frequent_rows_can_stay(joined):
    state, _, _ = trained(joined, recipe(joined, tables="lazy_adam", reinitialize={"keep_above": 20}))
    weight = state.model.embeddings.weight
    before = weight.detach().clone()
    assert state.optimizer.tables is not None and state.optimizer.tables.frequencies is not None
    counts = state.optimizer.tables.frequencies.of(torch.arange(len(weight)))
    state.optimizer.start_epoch(1, seed=1)
    stayed = (weight == before).all(dim=1)
    assert torch.equal(stayed, counts > 20) and 0 < stayed.sum() < len(weight)
    assert not state.optimizer.tables.exp_avg[~stayed].any() and state.optimizer.tables.exp_avg[stayed].any()
    assert state.optimizer.tables.step_count > 0


def test_precomputed_counts_are_those_of_all_examples(joined):
    config = recipe(joined, tables="lazy_adam", frequency_adaptive={"counts": "precomputed"})
    state, trainer, examples = trained(joined, config, epochs=0)
    trainer.count_rows([examples])
    assert state.optimizer.tables is not None and state.optimizer.tables.frequencies is not None
    counted = state.optimizer.tables.frequencies.all.clone()
    trainer.train_epoch(examples.shuffled(64, 0), len(examples), 0)
    assert torch.equal(state.optimizer.tables.frequencies.all.to(torch.int64), counted.to(torch.int64))
    surfaces = state.model.embeddings.first_rows["surface"]
    found = counted.to(torch.int64)[surfaces : surfaces + 16]
    assert found.sum().item() == len(examples)


def own_store(joined, tmp_path):
    """A store with a day of training examples."""
    day = joined.batch_days[0]
    shutil.copytree(joined.store.examples(TRAINING, day), Store(str(tmp_path)).examples(TRAINING, day))
    return Store(str(tmp_path))


@pytest.mark.parametrize("tables", ["adam", "lazy_adam"])
def test_batch_of_two_epochs_redraws_between_them(joined, tmp_path, tables):
    store, day = own_store(joined, tmp_path), joined.batch_days[0]
    train_batch(store.root, "x", joined.config.features, recipe(joined, tables=tables, reinitialize={}), [day])
    state, _ = load_state(store, "x", day)
    steps = {name: v.item() for name, v in state.optimizer.state_tensors().items() if name.endswith("step")}
    own = steps.pop("tables/step" if tables == "lazy_adam" else "embeddings.weight/step")
    assert own * 2 == state.lineage.step and set(steps.values()) == {state.lineage.step}


def test_batch_with_precomputed_counts_learns(joined, tmp_path):
    store, day = own_store(joined, tmp_path), joined.batch_days[0]
    config = recipe(joined, tables="lazy_adam", frequency_adaptive={"counts": "precomputed"})
    train_batch(store.root, "x", joined.config.features, config, [day])
    state, _ = load_state(store, "x", day)
    assert state.optimizer.tables is not None and state.optimizer.tables.frequencies is not None
    table, _ = read_examples(store, TRAINING, day)
    batch = tensors_of(table, joined.config.features, unsampled=False).batch(slice(None))
    assert state.optimizer.tables.frequencies.all.to(torch.int64).sum() == len(batch.sparse.values())
    fresh = new_state(joined.config.features, config, state.lineage)
    moved = (state.model.embeddings.weight - fresh.model.embeddings.weight).abs().sum(dim=1) > 0
    assert torch.equal(moved, state.optimizer.tables.frequencies.all.to(torch.int64) > 0)


def test_weight_decay_shrinks_matrices_only(joined):
    state, _, examples = trained(joined, recipe(joined, weight_decay=0.5), epochs=0)
    before = {name: value.detach().clone() for name, value in state.model.named_parameters()}
    total, _ = state.model.loss(examples.batch(slice(0, 8)), torch.zeros(6))
    total.backward()
    state.optimizer.step()
    rate = state.config.optimizer.learning_rate
    for name, value in state.model.named_parameters():
        shrunk = name.startswith("net.") and value.dim() > 1
        torch.testing.assert_close(value, before[name] * (1 - rate * 0.5 if shrunk else 1.0), msg=name)


def test_every_look_up_of_a_step_is_trained(joined):
    """Two batches before one step; and a look-up for evaluation between loss and update changes nothing."""
    state, _, examples = trained(joined, recipe(joined, tables="lazy_adam"), epochs=0)
    state.model.train()
    state.optimizer.zero_grad()
    parts = [examples.batch(slice(0, 32)), examples.batch(slice(32, 64))]
    for part in parts:
        state.model.loss(part, torch.ones(6))[0].backward()
    state.model.eval()
    state.model(parts[0])
    before = state.model.embeddings.weight.detach().clone()
    state.optimizer.step()
    rows = torch.cat([rows for part in parts for rows in state.model.embeddings.layout.rows(part.sparse)]).unique()
    moved = (state.model.embeddings.weight != before).any(dim=1).nonzero().view(-1)
    assert torch.equal(moved, rows)
