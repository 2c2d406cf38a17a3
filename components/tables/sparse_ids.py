"""A batch's ids as the KeyedJaggedTensor that embedding tables are looked up by."""

from __future__ import annotations

import torch
from torch import Tensor
from torchrec.sparse.jagged_tensor import KeyedJaggedTensor

from components.features.feature_list import FeatureConfig, sequence_column


def sparse_keys(features: FeatureConfig) -> list[str]:
    """Keys of the KeyedJaggedTensor, in order."""
    return [*features.categorical_names, *(sequence_column(name) for name in features.sequence_names)]


def make_sparse(features: FeatureConfig, categorical: Tensor, sequence: Tensor, lengths: Tensor) -> KeyedJaggedTensor:
    """Build the KeyedJaggedTensor of a batch.

    Args:
        features: The feature list.
        categorical: Ids, int64, shape (n, C).
        sequence: Ids, padded at the end, int64, shape (n, L, S).
        lengths: Used positions of each row's sequence, int64, shape (n,).
    """
    used = torch.arange(sequence.shape[1]) < lengths[:, None]
    values = torch.cat([categorical.t().reshape(-1), sequence[used].t().reshape(-1)])
    ones = torch.ones(categorical.shape[1] * len(categorical), dtype=torch.int64)
    return KeyedJaggedTensor(
        keys=sparse_keys(features),
        values=values,
        lengths=torch.cat([ones, lengths.repeat(sequence.shape[2])]),
    )
