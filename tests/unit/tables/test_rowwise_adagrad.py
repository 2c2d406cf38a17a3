"""Row-wise Adagrad through FBGEMM, against its definition."""

from __future__ import annotations

import pytest
import torch

from components.common.errors import InputError
from components.tables.rowwise_adagrad import RowwiseAdagrad
from tests.unit.tables.test_lazy_adam import DIM, TABLES, Reference, batches, config_of, take_step


def test_adagrad_follows_its_definition():
    """A row's rate is over the root of its summed mean squares; FAL takes part of the step."""
    for adaptive in (None, {}):
        config = config_of(tables="rowwise_adagrad", frequency_adaptive=adaptive)
        weight = torch.randn(sum(TABLES), DIM, generator=torch.Generator().manual_seed(1)) * 0.01
        expected, sums = weight.double().clone(), torch.zeros(len(weight), dtype=torch.float64)
        reference = Reference(weight, config)
        optimizer = RowwiseAdagrad(weight, TABLES, config)
        for rows, gradients in batches(50):
            for row in rows.tolist():
                reference.counts[row] += 1
            for row in rows.unique().tolist():
                gradient = gradients[rows == row].double().sum(0)
                sums[row] += gradient.pow(2).mean()
                expected[row] -= 1e-3 * reference.factor(row) * gradient / (sums[row].sqrt() + config.eps)
            take_step(optimizer, rows, gradients)
        torch.testing.assert_close(weight.double(), expected, rtol=0, atol=1e-6)
        torch.testing.assert_close(optimizer.sum_of_squares.double(), sums, rtol=1e-5, atol=1e-12)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"bias_correction": "row"}, "leave it out"),
        ({"frequency_adaptive": {"apply_to": "gradient"}}, "divides any factor out"),
    ],
)
def test_adagrad_refuses_what_is_adam_s(changes, message):
    with pytest.raises(InputError, match=message):
        config_of(tables="rowwise_adagrad", **changes)
