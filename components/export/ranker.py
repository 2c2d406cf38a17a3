"""The part of the model that a ranker server runs."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from components.common.features import FeatureConfig
from components.train.model.ranker import LogitCorrection, RankerNet


class ServedRanker(nn.Module):
    """From embedding vectors and dense features to probabilities of un-sampled impressions."""

    def __init__(self, net: RankerNet, negative_keep_rate: float) -> None:
        """Put the correction of down-sampling behind the net."""
        super().__init__()
        self.net = net
        self.correction = LogitCorrection(negative_keep_rate)

    def forward(self, categorical: Tensor, dense: Tensor, sequence: Tensor, lengths: Tensor) -> Tensor:
        """Probabilities, shape (n, objectives); arguments as in `RankerNet.forward`."""
        return self.correction(self.net(categorical, dense, sequence, lengths))


class PackedRanker(nn.Module):
    """From packed INT4 rows to probabilities: rows are decoded, and those of a summed code added up, in the graph."""

    def __init__(self, ranker: ServedRanker, features: FeatureConfig) -> None:
        """Put the decoding in front of a ranker."""
        super().__init__()
        self.ranker = ranker
        self.categorical = _RowsToVectors(features, features.categorical_tables)
        self.sequence = _RowsToVectors(features, features.sequence_tables)

    def forward(
        self,
        categorical_halves: Tensor,
        categorical_scale: Tensor,
        categorical_bias: Tensor,
        dense: Tensor,
        sequence_halves: Tensor,
        sequence_scale: Tensor,
        sequence_bias: Tensor,
        lengths: Tensor,
    ) -> Tensor:
        """Probabilities, shape (n, objectives).

        Args:
            categorical_halves: Two numbers a byte, uint8, shape (n, rows, dim / 2).
            categorical_scale: float16, shape (n, rows, blocks).
            categorical_bias: Likewise.
            dense: Raw dense features, shape (n, D).
            sequence_halves: As of categorical ones, shape (n, L, rows, dim / 2).
            sequence_scale: float16, shape (n, L, rows, blocks).
            sequence_bias: Likewise.
            lengths: Used positions, int64, shape (n,).
        """
        categorical = self.categorical(categorical_halves, categorical_scale, categorical_bias)
        positions = self.sequence(sequence_halves, sequence_scale, sequence_bias).flatten(2)
        used = torch.arange(positions.shape[1], device=lengths.device) < lengths[:, None]
        return self.ranker(categorical, dense, positions * used[:, :, None], lengths)


class _RowsToVectors(nn.Module):
    """Decodes rows, and adds up those that make one vector."""

    sums: Tensor | None

    def __init__(self, features: FeatureConfig, tables: tuple[str, ...]) -> None:
        super().__init__()
        owners: list[int] = []
        made = 0
        for table in tables:
            code = features.binary_codes.get(table)
            width = code.num_vectors if code else 1
            owners += [made + min(block, width - 1) for block in range(code.num_blocks if code else 1)]
            made += width
        is_plain = owners == list(range(made))
        # (vectors, rows), 1 where a row is part of a vector.
        sums = None if is_plain else torch.nn.functional.one_hot(torch.tensor(owners), made).t().to(torch.float32)
        self.register_buffer("sums", sums)

    def forward(self, halves: Tensor, scale: Tensor, bias: Tensor) -> Tensor:
        """(..., rows, dim / 2) and (..., rows, blocks) to (..., vectors, dim)."""
        bytes_ = halves.to(torch.float32)
        # ONNX has no shift of bytes that every provider runs: halves are taken apart as numbers.
        high = torch.floor(bytes_ / 16)
        numbers = torch.stack([bytes_ - 16 * high, high], dim=-1).flatten(-2)
        blocks = numbers.unflatten(-1, (scale.shape[-1], -1))
        vectors = (blocks * scale.to(torch.float32)[..., None] + bias.to(torch.float32)[..., None]).flatten(-2)
        return vectors if self.sums is None else torch.matmul(self.sums, vectors)
