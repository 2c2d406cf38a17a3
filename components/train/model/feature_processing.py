"""Dense features to a common scale."""

from __future__ import annotations

import torch
from torch import Tensor, nn

_LIMIT = 5.0


class DenseNormalizer(nn.Module):
    """Standardises sign(x) * log(1 + |x|), as counts and recencies have long tails; clamps at 5 deviations.

    Mean and scale are fitted on the batch days and then belong to the model.
    """

    mean: Tensor
    scale: Tensor

    def __init__(self, num_features: int) -> None:
        """Start with mean 0 and scale 1."""
        super().__init__()
        self.register_buffer("mean", torch.zeros(num_features))
        self.register_buffer("scale", torch.ones(num_features))

    def fit(self, dense: Tensor) -> None:
        """Take mean and scale from raw values of shape (n, features)."""
        squeezed = _squeeze(dense.double())
        self.mean.copy_(squeezed.mean(dim=0))
        self.scale.copy_(squeezed.std(dim=0, correction=0).clamp(min=1e-3))

    def forward(self, dense: Tensor) -> Tensor:
        """Scale raw values of shape (n, features)."""
        return ((_squeeze(dense) - self.mean) / self.scale).clamp(-_LIMIT, _LIMIT)


def _squeeze(dense: Tensor) -> Tensor:
    return torch.sign(dense) * torch.log1p(torch.abs(dense))
