"""Dense features to a common scale."""

from __future__ import annotations

import torch
from torch import Tensor, nn

_LIMIT = 5.0


class Moments:
    """Mean and variance of transformed dense features, part by part (Chan, Golub and LeVeque 1983)."""

    def __init__(self, num_features: int) -> None:
        """Start without rows."""
        self.num_rows = 0
        self.mean = torch.zeros(num_features, dtype=torch.float64)
        self._squares = torch.zeros(num_features, dtype=torch.float64)

    @classmethod
    def of(cls, dense: Tensor) -> Moments:
        """The moments of raw values, shape (n, features)."""
        moments = cls(dense.shape[1])
        moments.add(dense)
        return moments

    def add(self, dense: Tensor) -> None:
        """Add raw values of shape (n, features)."""
        if len(dense) == 0:
            return
        squeezed = _squeeze(dense.double())
        mean, total = squeezed.mean(dim=0), self.num_rows + len(dense)
        between = (mean - self.mean) ** 2 * (self.num_rows * len(dense) / total)
        self._squares += ((squeezed - mean) ** 2).sum(dim=0) + between
        self.mean += (mean - self.mean) * (len(dense) / total)
        self.num_rows = total

    @property
    def deviation(self) -> Tensor:
        """Standard deviation of each feature over all rows so far, float64, shape (features,)."""
        return (self._squares / max(self.num_rows, 1)).sqrt()


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

    def fit(self, moments: Moments) -> None:
        """Take mean and scale of these."""
        self.mean.copy_(moments.mean)
        self.scale.copy_(moments.deviation.clamp(min=1e-3))

    def forward(self, dense: Tensor) -> Tensor:
        """Scale raw values of shape (n, features)."""
        return ((_squeeze(dense) - self.mean) / self.scale).clamp(-_LIMIT, _LIMIT)


def _squeeze(dense: Tensor) -> Tensor:
    return torch.sign(dense) * torch.log1p(torch.abs(dense))
