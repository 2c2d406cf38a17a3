"""Lazy Adam, frequency-adaptive rates and re-initialisation, against slow and obvious references."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from components.common.errors import InputError
from components.tables.config import OptimizerConfig
from components.tables.lazy_adam import LazyAdam
from components.tables.row_frequencies import RowFrequencies
from components.tables.rows import DistinctRows, RowGradients
from components.train.config import TrainConfig

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
    optimizer.step(RowGradients(rows, torch.ones_like(rows), gradients))


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
