"""A batch's ids as the KeyedJaggedTensor that embedding tables are looked up by."""

from __future__ import annotations

import torch
from torch import Tensor
from torchrec.sparse.jagged_tensor import KeyedJaggedTensor

from components.features.feature_list import FeatureConfig, sequence_column


def sparse_keys(features: FeatureConfig) -> list[str]:
    """Keys of the KeyedJaggedTensor, in order."""
    sequences = (sequence_column(name) for name in features.sequence_names)
    return [*features.categorical_names, *sequences, *(feature.name for feature in features.lists)]


def make_sparse(
    features: FeatureConfig,
    categorical: Tensor,
    sequence: Tensor,
    lengths: Tensor,
    used_positions: Tensor | None = None,
) -> KeyedJaggedTensor:
    """Build the KeyedJaggedTensor of a batch.

    Args:
        features: The feature list.
        categorical: Ids, then those of lists' positions, int64, shape (n, C + P).
        sequence: Ids, padded at the end, int64, shape (n, L, S).
        lengths: Used positions of each row's sequence, int64, shape (n,).
        used_positions: Which of the lists' positions have an identifier, bool, shape (n, P); needed if there are lists.
    """
    used = torch.arange(sequence.shape[1]) < lengths[:, None]
    categorical, positions = categorical.tensor_split([len(features.categorical_names)], dim=1)
    values = [categorical.t().reshape(-1), sequence[used].t().reshape(-1)]
    ones = torch.ones(categorical.shape[1] * len(categorical), dtype=torch.int64)
    sizes = [ones, lengths.repeat(sequence.shape[2])]
    if features.lists:
        assert used_positions is not None
        spans = [feature.length for feature in features.lists]
        for ids, is_used in zip(positions.split(spans, dim=1), used_positions.split(spans, dim=1), strict=True):
            values.append(ids[is_used])
            sizes.append(is_used.sum(dim=1))
    return KeyedJaggedTensor(keys=sparse_keys(features), values=torch.cat(values), lengths=torch.cat(sizes))
