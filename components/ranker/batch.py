"""What the ranker takes: sparse ids, dense features, labels and masks."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torchrec.sparse.jagged_tensor import KeyedJaggedTensor


@dataclass(frozen=True)
class Batch:
    """One batch of n rows.

    Attributes:
        sparse: Ids by key: one a row for every categorical feature, up to L a row for sequence columns and lists.
        vectors: Pretrained ones behind each other, zeros where there is none, float32, shape (n, V).
        dense: Raw dense features, then the weights of lists' positions, float32, shape (n, D + P).
        labels: 0 or 1, float32, shape (n, objectives).
        masks: Whether a row takes part in an objective, float32, shape (n, objectives).
    """

    sparse: KeyedJaggedTensor
    vectors: Tensor
    dense: Tensor
    labels: Tensor
    masks: Tensor

    def uncounted(self) -> Batch:
        """The same rows, but neither their labels nor their look-ups and vectors count."""
        none = torch.zeros(len(self.sparse.values()))
        sparse = KeyedJaggedTensor(self.sparse.keys(), self.sparse.values(), none, self.sparse.lengths())
        return Batch(sparse, torch.zeros_like(self.vectors), self.dense, self.labels, torch.zeros_like(self.masks))

    def to(self, device: torch.device | str) -> Batch:
        """The batch on a device."""
        values = (self.vectors, self.dense, self.labels, self.masks)
        rest = (own.to(device, non_blocking=True) for own in values)
        return Batch(self.sparse.to(torch.device(device), non_blocking=True), *rest)
