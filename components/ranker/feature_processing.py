"""Dense features to a common scale."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from components.features.feature_list import FeatureConfig

_LIMIT = 5.0


class Moments:
    """Mean and variance of transformed dense features, and their range as they are, part by part.

    By Chan, Golub and LeVeque 1983.
    """

    def __init__(self, num_features: int) -> None:
        """Start without rows."""
        self.num_rows = 0
        self.mean = torch.zeros(num_features, dtype=torch.float64)
        self._squares = torch.zeros(num_features, dtype=torch.float64)
        self.lowest = torch.full((num_features,), torch.inf, dtype=torch.float64)
        self.highest = -self.lowest

    @classmethod
    def of(cls, *parts: Tensor) -> Moments:
        """The moments of raw values, of at least one part of shape (n, features)."""
        moments = cls(parts[0].shape[1])
        for dense in parts:
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
        self.lowest = torch.minimum(self.lowest, dense.amin(dim=0))
        self.highest = torch.maximum(self.highest, dense.amax(dim=0))

    @property
    def deviation(self) -> Tensor:
        """Standard deviation of each feature over all rows so far, float64, shape (features,)."""
        return (self._squares / max(self.num_rows, 1)).sqrt()


class DenseNormalizer(nn.Module):
    """Standardises sign(x) * log(1 + |x|), as counts and recencies have long tails; clamps at 5 deviations.

    Numbers of `scale: min_max` go from 0 to 1 instead ([Qiu25] 4.5), and what is beyond their range to its ends.

    Mean and scale, of ranges the lowest number and the width, are fitted on the batch days, then belong to the model.
    """

    mean: Tensor
    scale: Tensor
    is_range: Tensor

    def __init__(self, features: FeatureConfig) -> None:
        """Start with mean 0 and scale 1."""
        super().__init__()
        names = features.dense_names
        ranges = {number.name for number in features.number_features if number.scale == "min_max"}
        self.register_buffer("mean", torch.zeros(len(names)))
        self.register_buffer("scale", torch.ones(len(names)))
        self.register_buffer("is_range", torch.tensor([name in ranges for name in names]), persistent=False)
        self._has_ranges = bool(ranges)

    def fit(self, moments: Moments) -> None:
        """Take mean and scale of these."""
        self.mean.copy_(moments.mean)
        self.scale.copy_(moments.deviation.clamp(min=1e-3))
        if moments.num_rows:
            width = moments.highest - moments.lowest
            self.mean[self.is_range] = moments.lowest[self.is_range].float()
            self.scale[self.is_range] = torch.where(width > 0, width, 1.0)[self.is_range].float()

    def forward(self, dense: Tensor) -> Tensor:
        """Scale raw values of shape (n, features)."""
        if not self._has_ranges:
            return ((_squeeze(dense) - self.mean) / self.scale).clamp(-_LIMIT, _LIMIT)
        scaled = (torch.where(self.is_range, dense, _squeeze(dense)) - self.mean) / self.scale
        return torch.where(self.is_range, scaled.clamp(0.0, 1.0), scaled.clamp(-_LIMIT, _LIMIT))


def _squeeze(dense: Tensor) -> Tensor:
    return torch.sign(dense) * torch.log1p(torch.abs(dense))
