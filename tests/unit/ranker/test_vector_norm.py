"""Pretrained vectors in the net: batch norm over rows that have one, as torch has it; zeros and a flag for others."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from components.features.feature_list import FeatureConfig
from components.ranker.vector_norm import VectorNorm

FEATURES = FeatureConfig.parse(
    {
        "categorical": [{"name": "user_id", "num_rows": 4}, {"name": "item_id", "num_rows": 4}],
        "vectors": [
            {"name": "item_vector", "entity": "item_id", "dim": 6},
            {"name": "user_vector", "entity": "user_id", "dim": 3},
        ],
    },
    "features",
)
DIM = 4


def drawn(num_rows: int, seed: int) -> torch.Tensor:
    """Vectors behind each other, every third row without one of an item, every fifth without one of a user."""
    vectors = 3 * torch.randn(num_rows, 9, generator=torch.Generator().manual_seed(seed)) + 2
    vectors[::3, :6] = 0
    vectors[::5, 6:] = 0
    return vectors


def test_rows_with_a_vector_are_normalised_as_torch_does():
    ours, theirs = VectorNorm(FEATURES, DIM), [nn.BatchNorm1d(6, momentum=None), nn.BatchNorm1d(3, momentum=None)]
    assert ours.num_rows == 3 and ours.num_features == 11
    with torch.no_grad():
        for name in ("weight", "bias"):
            values = torch.randn(9)
            getattr(ours, name).copy_(values)
            for norm, part in zip(theirs, values.split([6, 3]), strict=True):
                getattr(norm, name).copy_(part)
    for is_training in (True, True, True, False):
        for norm in (ours, *theirs):
            norm.train(is_training)
        vectors = drawn(60, seed=int(is_training))
        features = ours(ours.as_rows(vectors))
        for norm, part, own, flag in zip(
            theirs, vectors.split([6, 3], dim=1), features[:, :9].split([6, 3], dim=1), features[:, 9:].T, strict=True
        ):
            has_one = (part != 0).any(dim=1)
            torch.testing.assert_close(own[has_one], norm(part[has_one]), rtol=1e-5, atol=1e-5)
            assert not own[~has_one].any() and torch.equal(flag, (~has_one).float())


@pytest.mark.parametrize("num_rows", [0, 1])
def test_batches_with_too_few_vectors_take_and_leave_the_running_statistics(num_rows):
    norm = VectorNorm(FEATURES, DIM).train()
    norm(norm.as_rows(drawn(60, 0)))
    before = norm.mean.clone(), norm.deviation.clone()
    vectors = torch.zeros(4, 9)
    vectors[:num_rows] = 1.0
    by_batch = norm(norm.as_rows(vectors))
    assert torch.equal(norm.mean, before[0]) and torch.allclose(norm.deviation, before[1])
    assert torch.allclose(by_batch, norm.eval()(norm.as_rows(vectors)))
