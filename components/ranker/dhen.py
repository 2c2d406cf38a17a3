"""A deep and hierarchical ensemble network (Zhang et al. 2022, 2203.11014)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from components.ranker.config import DhenConfig
from components.ranker.masknet import MaskBlock


class DhenLayer(nn.Module):
    """X' = Norm(Ensemble_i(u_i(X)) + X), the modules u_i side by side (equation 2).

    The ensemble is a sum with learned weights, which start at one over their number, or a linear map of the modules'
    outputs put behind each other.
    """

    def __init__(self, num_vectors: int, dim: int, config: DhenConfig) -> None:
        """Keep `num_vectors` vectors of `dim`."""
        super().__init__()
        width = num_vectors * dim
        makers = {
            "transformer": lambda: nn.TransformerEncoderLayer(
                dim, config.num_heads, 2 * dim, config.dropout, batch_first=True, norm_first=True
            ),
            "masknet": lambda: MaskBlock(num_vectors, dim, config.hidden_size),
            "mlp": lambda: nn.Sequential(
                nn.Flatten(),
                nn.Linear(width, config.hidden_size),
                nn.ReLU(),
                nn.Linear(config.hidden_size, width),
                nn.Unflatten(1, (num_vectors, dim)),
            ),
        }
        self.branches = nn.ModuleDict({name: makers[name]() for name in config.modules})
        self._sums = config.ensemble == "sum"
        count = len(config.modules)
        if self._sums:
            self.weights = nn.Parameter(torch.full((count,), 1 / count))
        else:
            self.merge = nn.Linear(count * dim, dim)
        self.normalize = nn.LayerNorm(dim)

    def forward(self, vectors: Tensor) -> Tensor:
        """(n, num_vectors, dim) to the same shape."""
        outputs = [branch(vectors) for branch in self.branches.values()]
        if self._sums:
            merged = sum(weight * output for weight, output in zip(self.weights, outputs, strict=True))
        else:
            merged = self.merge(torch.cat(outputs, dim=2))
        return self.normalize(merged + vectors)


class Dhen(nn.Module):
    """A stack of layers over the categorical vectors, the dense features and the encoded sequence."""

    def __init__(self, num_categorical: int, num_dense: int, sequence_dim: int, dim: int, config: DhenConfig) -> None:
        """Bring dense features and sequence to a vector of `dim` each, beside the categorical ones."""
        super().__init__()
        self.dense = nn.Linear(num_dense, dim)
        self.sequence = nn.Linear(sequence_dim, dim)
        num_vectors = num_categorical + 2
        self.layers = nn.Sequential(*(DhenLayer(num_vectors, dim, config) for _ in range(config.num_layers)))
        self.width = num_vectors * dim

    def forward(self, categorical: Tensor, dense: Tensor, sequence: Tensor) -> Tensor:
        """Mix a batch of n rows.

        Args:
            categorical: Vectors, shape (n, C, dim).
            dense: Scaled dense features, shape (n, D).
            sequence: Encoded sequence, shape (n, sequence_dim).

        Returns:
            Shape (n, (C + 2) * dim).
        """
        others = torch.stack([self.dense(dense), self.sequence(sequence)], dim=1)
        return self.layers(torch.cat([categorical, others], dim=1)).flatten(1)
