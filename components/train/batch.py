"""What the ranker takes: sparse ids as a KeyedJaggedTensor, dense features, labels and masks."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torchrec.sparse.jagged_tensor import KeyedJaggedTensor

from components.common.features import FeatureConfig, sequence_column


@dataclass(frozen=True)
class Batch:
    """One batch of n rows.

    Attributes:
        sparse: Ids by key: one a row for every categorical feature, up to L a row for sequence columns.
        dense: Raw dense features, float32, shape (n, D).
        labels: 0 or 1, float32, shape (n, objectives).
        masks: Whether a row takes part in an objective, float32, shape (n, objectives).
    """

    sparse: KeyedJaggedTensor
    dense: Tensor
    labels: Tensor
    masks: Tensor

    def uncounted(self) -> Batch:
        """The same rows, but neither their labels nor their look-ups count."""
        none = torch.zeros(len(self.sparse.values()))
        sparse = KeyedJaggedTensor(self.sparse.keys(), self.sparse.values(), none, self.sparse.lengths())
        return Batch(sparse, self.dense, self.labels, torch.zeros_like(self.masks))

    def to(self, device: torch.device | str) -> Batch:
        """The batch on a device."""
        rest = (values.to(device, non_blocking=True) for values in (self.dense, self.labels, self.masks))
        return Batch(self.sparse.to(torch.device(device), non_blocking=True), *rest)


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
