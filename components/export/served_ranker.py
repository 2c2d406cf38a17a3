"""The part of the model that a ranker server runs."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from components.features.feature_list import FeatureConfig
from components.ranker.ranker import LogitCorrection, RankerNet
from components.version.int4 import Int4Layout, finest
from components.version.packed_tables import PackedTable, look_up_rows


class ServedRanker(nn.Module):
    """From embedding vectors and dense features to probabilities of un-sampled impressions."""

    def __init__(self, net: RankerNet, negative_keep_rate: float) -> None:
        """Put the correction of down-sampling behind the net."""
        super().__init__()
        self.net = net
        self.correction = LogitCorrection(negative_keep_rate)

    def forward(self, categorical: Tensor, dense: Tensor, sequence: Tensor, lengths: Tensor, users: Tensor) -> Tensor:
        """Probabilities, shape (n, objectives); a user's sequence is encoded once, however many rows share it.

        Args:
            categorical: Vectors, then those of lists' positions, shape (n, C + P, dim).
            dense: Raw dense features, then the weights of lists' positions, shape (n, D + P).
            sequence: Vectors of u users, padded with zeros, shape (u, L, S * dim).
            lengths: Used positions, int64, shape (u,).
            users: Which of the u each row belongs to, int64, shape (n,).
        """
        encoded = self.net.sequence(sequence, lengths)[users]
        return self.correction(self.net.mix(categorical, dense, encoded))


class PackedRanker(nn.Module):
    """From packed INT4 rows to probabilities: rows are decoded, and those of one vector added up, in the graph."""

    def __init__(self, ranker: ServedRanker, features: FeatureConfig, specs: list[PackedTable]) -> None:
        """Put the decoding of these tables' rows in front of a ranker."""
        super().__init__()
        self.ranker = ranker
        self.categorical, self.sequence = (
            RowsToVectors(
                [row.vector for row in look_up_rows(tables, specs, features)], finest(spec.layout for spec in specs)
            )
            for tables in (features.served_columns, features.sequence_tables)
        )

    def forward(
        self, categorical_rows: Tensor, dense: Tensor, sequence_rows: Tensor, lengths: Tensor, users: Tensor
    ) -> Tensor:
        """Probabilities, shape (n, objectives).

        Args:
            categorical_rows: Packed rows, uint8, shape (n, rows, row bytes).
            dense: Raw dense features, then the weights of lists' positions, shape (n, D + P).
            sequence_rows: As of categorical ones, of u users, shape (u, L, rows, row bytes).
            lengths: Used positions, int64, shape (u,).
            users: Which of the u each row belongs to, int64, shape (n,).
        """
        positions = self.sequence(sequence_rows).flatten(2)
        used = torch.arange(positions.shape[1], device=lengths.device) < lengths[:, None]
        return self.ranker(self.categorical(categorical_rows), dense, positions * used[:, :, None], lengths, users)


class RowsToVectors(nn.Module):
    """Decodes packed rows, and adds up those that make one vector."""

    powers: Tensor
    sums: Tensor | None

    def __init__(self, vectors: list[int], layout: Int4Layout) -> None:
        """Decode rows in a layout, each of which is a part of one of the vectors 0, 1, ..."""
        super().__init__()
        self.num_blocks = layout.num_blocks
        is_plain = vectors == list(range(len(vectors)))
        # (vectors, rows), 1 where a row is part of a vector.
        sums = None if is_plain else torch.nn.functional.one_hot(torch.tensor(vectors)).t().to(torch.float32)
        self.register_buffer("sums", sums, persistent=False)
        # By a float16's five bits of exponent: the value of its lowest bit. The lowest exponent has no hidden bit.
        self.register_buffer("powers", 2.0 ** (torch.arange(32).clamp(min=1) - 25).to(torch.float32), persistent=False)

    def forward(self, rows: Tensor) -> Tensor:
        """(..., rows, row bytes) to (..., vectors, dim)."""
        blocks = rows.to(torch.float32).unflatten(-1, (self.num_blocks, -1))
        # ONNX has no shift of bytes that every provider runs: halves are taken apart as numbers.
        bytes_ = blocks[..., :-4]
        high = torch.floor(bytes_ / 16)
        numbers = torch.stack([bytes_ - 16 * high, high], dim=-1).flatten(-2)
        scale, bias = self._float16(blocks[..., -4:-2]), self._float16(blocks[..., -2:])
        vectors = (numbers * scale + bias).flatten(-2)
        return vectors if self.sums is None else torch.matmul(self.sums, vectors)

    def _float16(self, bytes_: Tensor) -> Tensor:
        """The finite float16 of two bytes, the lower one first; shape (..., 2) to (..., 1)."""
        low, high = bytes_[..., :1], bytes_[..., 1:]
        negative = torch.floor(high / 128)
        exponent = torch.floor((high - 128 * negative) / 4)
        digits = low + 256 * (high - 128 * negative - 4 * exponent) + 1024 * (exponent > 0).to(torch.float32)
        return (1 - 2 * negative) * digits * self.powers[exponent.to(torch.int64)]
