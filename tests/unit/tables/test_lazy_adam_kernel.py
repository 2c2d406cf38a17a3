"""The Triton kernel in Triton's interpreter, against the same updates in plain torch; on a GPU see tests/gpu."""

from __future__ import annotations

import os

import pytest
import torch

from components.tables.lazy_adam import LazyAdam
from tests.unit.tables.test_lazy_adam import DIM, TABLES, batches, config_of, take_step


@pytest.fixture(scope="module")
def update_rows():
    if torch.cuda.is_available():
        pytest.skip("there is a GPU: tests/gpu runs the compiled kernel")
    os.environ["TRITON_INTERPRET"] = "1"
    from components.tables.lazy_adam_kernel import update_rows

    return update_rows


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"frequency_adaptive": {}},
        {"frequency_adaptive": {"scaling": "linear"}, "bias_correction": "row"},
        {"frequency_adaptive": {"apply_to": "gradient"}},
    ],
)
def test_kernel_updates_as_torch(update_rows, changes):
    config = config_of(table_multiplier=50, **changes)
    results = []
    for kernel in (None, update_rows):
        weight = torch.randn(sum(TABLES), DIM, generator=torch.Generator().manual_seed(1)) * 0.01
        optimizer = LazyAdam(weight, TABLES, config)
        optimizer._kernel = kernel
        for rows, gradients in batches(20):
            take_step(optimizer, rows, gradients)
        results.append((weight, optimizer.exp_avg, optimizer.exp_avg_sq))
    for plain, compiled in zip(*results, strict=True):
        torch.testing.assert_close(compiled, plain, rtol=1e-5, atol=1e-7)
    assert results[0][0].std() > 0.02, "the weights must have moved"
