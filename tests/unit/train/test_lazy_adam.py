"""Lazy Adam, frequency-adaptive rates and re-initialisation, against slow and obvious references."""

from __future__ import annotations

import math
import shutil

import numpy as np
import pytest
import torch

from components.common.errors import InputError
from components.common.examples import TRAINING, read_examples
from components.common.layout import Store
from components.train.checkpoint import Lineage, load_checkpoint, new_state, write_checkpoint
from components.train.config import OptimizerConfig, TrainConfig
from components.train.dataset import tensors_of
from components.train.frequencies import RowFrequencies
from components.train.lazy_adam import LazyAdam
from components.train.rows import DistinctRows, RowGradients
from components.train.run import train_batch
from components.train.trainer import Trainer

TABLES, DIM, STEPS = [7, 1, 40], 4, 200


def config_of(**changes):
    return OptimizerConfig.parse({"learning_rate": 1e-3, "tables": "lazy_adam", **changes}, "optimizer")


def batches(steps=STEPS, seed=0):
    """Rows with many repeats; the last rows of the last table never occur."""
    generator = np.random.default_rng(seed)
    for _ in range(steps):
        rows = np.concatenate([generator.integers(0, 7, 9), [7, 7], 8 + generator.zipf(1.5, 12) % 35])
        gradients = generator.normal(size=(len(rows), DIM)) * 10.0 ** generator.uniform(-7, 0, (len(rows), 1))
        yield torch.from_numpy(rows), torch.from_numpy(gradients.astype(np.float32))


def take_step(optimizer, rows, gradients):
    distinct = DistinctRows.of(rows)
    optimizer.step(RowGradients(distinct.rows, distinct.counts, distinct.sum(gradients)))


class Reference:
    """Equation 1 of Qiu et al. 2025, row by row in Python's floats."""

    def __init__(self, weight, config, counts=None):
        self.weight = weight.double().tolist()
        self.config, self.steps = config, 0
        self.first = [[0.0] * DIM for _ in self.weight]
        self.second = [[0.0] * DIM for _ in self.weight]
        self.counts = counts or [0] * len(self.weight)
        ends = np.cumsum(TABLES)
        self.table = [int(np.searchsorted(ends, row, side="right")) for row in range(len(self.weight))]

    def factor(self, row):
        adaptive = self.config.frequency_adaptive
        if adaptive is None:
            return 1.0
        largest = max(c for c, table in zip(self.counts, self.table, strict=True) if table == self.table[row])
        if adaptive.scaling == "linear":
            return self.counts[row] / largest
        return math.log(self.counts[row] + 1) / math.log(largest + 1)

    def step(self, rows, gradients):
        self.steps += 1
        summed = {}
        for row, gradient in zip(rows.tolist(), gradients.double().tolist(), strict=True):
            self.counts[row] = min(self.counts[row] + 1, 2**32 - 1)
            summed[row] = [a + b for a, b in zip(summed.get(row, [0.0] * DIM), gradient, strict=True)]
        (beta1, beta2), adaptive = self.config.betas, self.config.frequency_adaptive
        for row, gradient in summed.items():
            alpha = self.factor(row)
            on_gradient = adaptive is not None and adaptive.apply_to == "gradient"
            for place, value in enumerate(gradient):
                g = value * alpha if on_gradient else value
                m = self.first[row][place] = beta1 * self.first[row][place] + (1 - beta1) * g
                v = self.second[row][place] = beta2 * self.second[row][place] + (1 - beta2) * g * g
                update = (m / (1 - beta1**self.steps)) / (math.sqrt(v / (1 - beta2**self.steps)) + self.config.eps)
                rate = self.config.learning_rate * self.config.table_multiplier
                self.weight[row][place] -= rate * (1.0 if on_gradient else alpha) * update


@pytest.mark.parametrize("adaptive", [None, {}, {"scaling": "linear"}, {"apply_to": "gradient"}])
@pytest.mark.parametrize("starts", [[0], [0, 5, 2**31 - 50, 2**32 - 100]])
def test_updates_follow_equation_1(adaptive, starts):
    config = config_of(frequency_adaptive=adaptive)
    weight = torch.randn(sum(TABLES), DIM, generator=torch.Generator().manual_seed(1)) * 0.01
    counts = [starts[row % len(starts)] for row in range(len(weight))]
    reference = Reference(weight, config, list(counts))
    optimizer = LazyAdam(weight, TABLES, config)
    if optimizer.frequencies is not None:
        optimizer.count(torch.arange(len(weight)), torch.tensor(counts))
    for rows, gradients in batches():
        take_step(optimizer, rows, gradients)
        reference.step(rows, gradients)
    torch.testing.assert_close(weight.double(), torch.tensor(reference.weight, dtype=torch.float64), rtol=0, atol=1e-6)
    if optimizer.frequencies is not None:
        found = optimizer.frequencies.of(torch.arange(len(weight))).tolist()
        assert found == reference.counts and max(found) <= 2**32 - 1


def test_rows_that_never_occur_do_not_move():
    weight = torch.ones(sum(TABLES), DIM)
    optimizer = LazyAdam(weight, TABLES, config_of(frequency_adaptive={}))
    for rows, gradients in batches(20):
        take_step(optimizer, rows, gradients)
    assert torch.equal(weight[-5:], torch.ones(5, DIM))
    assert not optimizer.exp_avg[-5:].any()


def test_rows_in_every_batch_move_as_under_torch_s_adam():
    weight = torch.randn(6, DIM)
    dense = torch.nn.Parameter(weight.clone())
    config = config_of()
    optimizer, adam = LazyAdam(weight, [6], config), torch.optim.Adam([dense], lr=1e-3, eps=config.eps)
    generator = torch.Generator().manual_seed(2)
    for _ in range(STEPS):
        rows = torch.cat([torch.arange(6), torch.randint(0, 6, (9,), generator=generator)])
        gradients = torch.randn(15, DIM, generator=generator)
        dense.grad = torch.zeros(6, DIM).index_add_(0, rows, gradients)
        adam.step()
        take_step(optimizer, rows, gradients)
    torch.testing.assert_close(weight, dense.detach(), rtol=0, atol=1e-6)


def test_row_correction_makes_first_updates_equal():
    """A row's first update has the full rate whenever it comes; under global correction a late one has more."""
    moved = {}
    for correction in ("row", "global"):
        weight = torch.zeros(2, DIM)
        optimizer = LazyAdam(weight, [2], config_of(bias_correction=correction))
        for _ in range(500):
            take_step(optimizer, torch.tensor([0]), torch.ones(1, DIM))
        take_step(optimizer, torch.tensor([1]), torch.ones(1, DIM))
        moved[correction] = -weight[1, 0].item() / 1e-3
    assert moved["row"] == pytest.approx(1.0, rel=1e-3)
    assert moved["global"] > 1.5


def test_gradients_of_equal_rows_are_summed():
    distinct = DistinctRows.of(torch.tensor([5, 2, 5, 5]))
    vectors = torch.tensor([[10.0], [20.0]], requires_grad=True)
    expanded = distinct.expand(vectors)
    expanded.backward(torch.tensor([[1.0], [2.0], [3.0], [4.0]]))
    assert (distinct.rows.tolist(), distinct.counts.tolist()) == ([2, 5], [1, 3])
    assert expanded.view(-1).tolist() == [20.0, 10.0, 20.0, 20.0] and vectors.grad.tolist() == [[2.0], [8.0]]


def test_frequencies_take_a_row_s_share_of_memory():
    frequencies = RowFrequencies([1000])
    assert frequencies.all.element_size() * len(frequencies.all) * 32 == 1000 * 32 * 4


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"tables": "adam", "frequency_adaptive": {}}, "set tables: lazy_adam"),
        ({"tables": "adam", "bias_correction": "row"}, "set tables: lazy_adam"),
        ({"tables": "adam", "reinitialize": {"keep_above": 3}}, "set tables: lazy_adam"),
        ({"eps": 1e-8, "frequency_adaptive": {"apply_to": "gradient"}}, "raise eps to 1e-6"),
    ],
)
def test_recipes_without_sense_are_refused(changes, message):
    with pytest.raises(InputError, match=message):
        config_of(**changes)


def test_redrawing_needs_an_epoch_boundary():
    with pytest.raises(InputError, match="set epochs: 2"):
        TrainConfig.parse({"optimizer": {"reinitialize": {}}}, "train")


def recipe(joined, **optimizer):
    values = joined.config.arms.candidate.model_dump() | {"epochs": 2, "batch_size": 64}
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
    settings = {"features": joined.config.features.model_dump(mode="json"), "train": config.recipe()}
    store = Store(str(tmp_path))
    write_checkpoint(store, state, {}, settings, {}, {})
    again, _ = load_checkpoint(store, "x", joined.batch_days[0])
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
    state, _ = load_checkpoint(store, "x", day)
    steps = {name: v.item() for name, v in state.optimizer.state_tensors().items() if name.endswith("step")}
    own = steps.pop("tables/step" if tables == "lazy_adam" else "embeddings.weight/step")
    assert own * 2 == state.lineage.step and set(steps.values()) == {state.lineage.step}


def test_batch_with_precomputed_counts_learns(joined, tmp_path):
    store, day = own_store(joined, tmp_path), joined.batch_days[0]
    config = recipe(joined, tables="lazy_adam", frequency_adaptive={"counts": "precomputed"})
    train_batch(store.root, "x", joined.config.features, config, [day])
    state, _ = load_checkpoint(store, "x", day)
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
    rows = torch.cat([state.model.embeddings.layout.rows(part.sparse) for part in parts]).unique()
    moved = (state.model.embeddings.weight != before).any(dim=1).nonzero().view(-1)
    assert torch.equal(moved, rows)
