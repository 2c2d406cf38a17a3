"""Kernels against the same updates in torch: Triton's in its interpreter (on a GPU see tests/gpu), and numba's."""

from __future__ import annotations

import os

import pytest
import torch

from components.tables.cpu_rows import look_up
from components.tables.lazy_adam import LazyAdam
from components.tables.rows import RowGradients
from tests.unit.tables.test_lazy_adam import DIM, TABLES, batches, config_of, take_step


@pytest.fixture(scope="module")
def update_rows():
    if torch.cuda.is_available():
        pytest.skip("there is a GPU: tests/gpu runs the compiled kernel")
    os.environ["TRITON_INTERPRET"] = "1"
    from components.tables.lazy_adam_kernel import update_rows

    return update_rows


CHANGES = [
    {},
    {"frequency_adaptive": {}},
    {"frequency_adaptive": {"scaling": "linear"}, "bias_correction": "row"},
    {"frequency_adaptive": {"apply_to": "gradient"}},
    {"frequency_adaptive": {"counts": "precomputed"}, "bias_correction": "row"},
    {"reinitialize": {"keep_above": 2}},
]


def state_of(weight, optimizer):
    """Weight and state; frequencies as int64, which torch compares."""
    state = {"weight": weight, **optimizer.state_tensors()}
    return {name: value.to(torch.int64) if value.dtype == torch.uint32 else value for name, value in state.items()}


def trained(changes, arrange):
    """State after twenty steps; `arrange` chooses the kernel."""
    weight = torch.randn(sum(TABLES), DIM, generator=torch.Generator().manual_seed(1)) * 0.01
    optimizer = LazyAdam(weight, TABLES, config_of(table_multiplier=50, **changes))
    if optimizer.frequencies is not None:
        optimizer.count(torch.arange(len(weight)), torch.arange(len(weight)) % 9 + 1)
    arrange(optimizer)
    for rows, gradients in batches(20):
        take_step(optimizer, rows, gradients)
    assert weight.std() > 0.02, "the weights must have moved"
    return state_of(weight, optimizer)


def in_torch(optimizer):
    optimizer._cpu_rows = None


def assert_as_in_torch(found, changes):
    expected = trained(changes, in_torch)
    assert found.keys() == expected.keys()
    for name, value in found.items():
        torch.testing.assert_close(value, expected[name], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("changes", CHANGES)
def test_kernel_on_a_gpu_updates_as_torch(update_rows, changes):
    def with_kernel(optimizer):
        in_torch(optimizer)
        optimizer._kernel = update_rows

    assert_as_in_torch(trained(changes, with_kernel), changes)


@pytest.mark.parametrize("changes", CHANGES)
def test_kernels_on_a_cpu_update_as_torch(changes):
    assert_as_in_torch(trained(changes, lambda optimizer: None), changes)


@pytest.mark.parametrize("changes", CHANGES)
def test_any_number_of_threads_gives_the_same_bits(monkeypatch, changes):
    states = []
    for threads in (1, 2):
        monkeypatch.setattr(torch, "get_num_threads", lambda threads=threads: threads)
        states.append(trained(changes, lambda optimizer: None))
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])


def test_parts_that_share_rows_are_one_batch():
    states = []
    for cuts in ([], [5], [0, 5, 5, 17]):
        weight = torch.zeros(sum(TABLES), DIM)
        optimizer = LazyAdam(weight, TABLES, config_of(frequency_adaptive={}, bias_correction="row"))
        for rows, gradients in batches(5):
            parts = zip(rows.tensor_split(cuts), gradients.tensor_split(cuts), strict=True)
            optimizer.step(*(RowGradients(some, torch.ones_like(some), values) for some, values in parts))
        states.append(state_of(weight, optimizer))
    assert all(torch.equal(states[0][name], state[name]) for state in states for name in state)


def test_rows_are_looked_up_as_torch_does():
    weight = torch.randn(1000, 5)
    for count in (0, 1, 3, 700):
        rows = torch.randint(0, 1000, (count,))
        assert torch.equal(look_up(weight, rows), weight[rows])


@pytest.mark.parametrize("row", [-1, 4])
def test_a_row_that_is_not_there_is_an_error(row):
    with pytest.raises(IndexError, match="of a weight of 4 rows"):
        look_up(torch.zeros(4, 2), torch.tensor([0, row, 3]))
