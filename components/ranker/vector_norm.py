"""Batch norm of pretrained vectors."""

from __future__ import annotations

from itertools import accumulate, pairwise

import torch
from torch import Tensor, distributed, nn
from torch.nn import functional

from components.features.feature_list import FeatureConfig

_MOMENTUM = 0.1
_EPSILON = 1e-5


class VectorNorm(nn.Module):
    """Takes pretrained vectors to mean 0 and deviation 1, then a learned scale and shift, number by number.

    By Ioffe and Szegedy 2015, as [Qiu25] 4.5 has it. Mean and deviation are those of the batch's rows that have a
    vector, over all processes; behind training the running ones, which begin as plain averages. A row without a vector
    has zeros behind the norm, and a flag.

    Attributes:
        num_features: What it makes of a row: all numbers, V, and a flag for each vector, F.
        num_rows: Table rows that a row's vectors take, R.
    """

    mean: Tensor
    deviation: Tensor
    num_batches: Tensor

    def __init__(self, features: FeatureConfig, dim: int) -> None:
        """Start with mean 0 and deviation 1; vectors come in table rows of length `dim`."""
        super().__init__()
        dims, rows = zip(*((own.dim, own.rows_per_vector(dim)) for own in features.vectors), strict=True)
        self._dim, self._dims, self.num_rows = dim, list(dims), sum(rows)
        self._rows = [*rows]
        self._spans = [*pairwise(accumulate(rows, initial=0))]
        self.num_features = sum(dims) + len(dims)
        self.weight, self.bias = nn.Parameter(torch.ones(sum(dims))), nn.Parameter(torch.zeros(sum(dims)))
        self.register_buffer("mean", torch.zeros(sum(dims)))
        self.register_buffer("deviation", torch.ones(sum(dims)))
        self.register_buffer("num_batches", torch.zeros(1))

    def as_rows(self, vectors: Tensor) -> Tensor:
        """Vectors (n, V) as rows of a table, each filled up with zeros, (n, R, dim)."""
        parts = zip(vectors.split(self._dims, dim=1), self._rows, strict=True)
        padded = [functional.pad(own, (0, rows * self._dim - own.shape[1])) for own, rows in parts]
        return torch.cat(padded, dim=1).unflatten(1, (self.num_rows, self._dim))

    def forward(self, rows: Tensor) -> Tensor:
        """Table rows (n, R, dim) to features (n, V + F)."""
        numbers = [
            rows[:, start:stop].flatten(1)[:, :width]
            for (start, stop), width in zip(self._spans, self._dims, strict=True)
        ]
        given = [(own.abs().amax(dim=1, keepdim=True) > 0).to(rows.dtype) for own in numbers]
        together = torch.cat(numbers, dim=1)
        is_given = torch.cat([own.expand(-1, width) for own, width in zip(given, self._dims, strict=True)], dim=1)
        mean, deviation = self._of_batch(together, is_given) if self.training else (self.mean, self.deviation)
        normal = (together - mean) / deviation * self.weight + self.bias
        return torch.cat([normal * is_given, *(1 - own for own in given)], dim=1)

    @torch.no_grad()
    def _of_batch(self, numbers: Tensor, is_given: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and deviation of each number, shape (V,) each, where there are two rows or more; keeps the averages."""
        numbers, is_given = numbers.double(), is_given.double()
        sums = torch.stack([is_given.sum(0), (numbers * is_given).sum(0), (numbers**2 * is_given).sum(0)])
        if distributed.is_initialized():
            distributed.all_reduce(sums)
        count, total, squares = sums
        is_enough = count > 1
        mean = torch.where(is_enough, total / count, self.mean.double())
        kept = self.deviation.double() ** 2
        variance = torch.where(is_enough, (squares / count - mean**2).clamp(min=0) + _EPSILON, kept)
        self.num_batches += 1
        share = torch.clamp(1 / self.num_batches.double(), min=_MOMENTUM)
        unbiased = torch.where(is_enough, (variance - _EPSILON) * count / (count - 1) + _EPSILON, kept)
        self.mean += (share * (mean - self.mean)).float()
        self.deviation.copy_((kept + share * (unbiased - kept)).sqrt())
        return mean.float(), variance.sqrt().float()
