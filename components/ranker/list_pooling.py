"""Several vectors of a row to one."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from components.features.feature_list import FeatureConfig


class ListPooling(nn.Module):
    """Adds up the vectors of each list's positions by weights that stand behind the dense features.

    Weights are those of `ListPositions`: a mean's add up to one.
    """

    def __init__(self, features: FeatureConfig) -> None:
        """Take the lists' lengths."""
        super().__init__()
        self._lengths = [feature.length for feature in features.lists]
        self._num_dense = len(features.dense_names)
        self.num_vectors = features.num_vectors(features.categorical_names) + len(self._lengths)

    def forward(self, categorical: Tensor, dense: Tensor) -> tuple[Tensor, Tensor]:
        """Categorical vectors (n, C + P, dim) and dense features (n, D + P) to (n, C + lists, dim) and (n, D)."""
        if not self._lengths:
            return categorical, dense
        own, positions = categorical.tensor_split([self.num_vectors - len(self._lengths)], dim=1)
        dense, weights = dense.tensor_split([self._num_dense], dim=1)
        weighted = (positions * weights[:, :, None]).split(self._lengths, dim=1)
        return torch.cat([own, *(part.sum(dim=1, keepdim=True) for part in weighted)], dim=1), dense
