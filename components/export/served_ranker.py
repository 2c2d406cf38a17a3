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

    float16s: Tensor
    sums: Tensor | None

    def __init__(self, vectors: list[int], layout: Int4Layout) -> None:
        """Decode rows in a layout, each of which is a part of one of the vectors 0, 1, ..."""
        super().__init__()
        self.num_blocks = layout.num_blocks
        is_plain = vectors == list(range(len(vectors)))
        # (vectors, rows), 1 where a row is part of a vector.
        sums = None if is_plain else torch.nn.functional.one_hot(torch.tensor(vectors)).t().to(torch.float32)
        self.register_buffer("sums", sums, persistent=False)
        self.register_buffer("float16s", _float16_by_high_byte(), persistent=False)

    def forward(self, rows: Tensor) -> Tensor:
        """(..., rows, row bytes) to (..., vectors, dim)."""
        blocks = rows.unflatten(-1, (self.num_blocks, -1))
        # ONNX has no shift of bytes that every provider runs: a byte's two numbers are taken apart as numbers.
        bytes_ = blocks[..., :-4].to(torch.float32)
        high = torch.floor(bytes_ / 16)
        numbers = torch.stack([bytes_ - 16 * high, high], dim=-1).flatten(-2)
        # Scale and bias, float16 each, the lower byte first.
        low_bytes, high_bytes = blocks[..., -4::2].to(torch.float32), blocks[..., -3::2].to(torch.int64)
        parameters = self.float16s[0][high_bytes] + self.float16s[1][high_bytes] * low_bytes
        vectors = (numbers * parameters[..., :1] + parameters[..., 1:]).flatten(-2)
        return vectors if self.sums is None else torch.matmul(self.sums, vectors)


def _float16_by_high_byte() -> Tensor:
    """What a finite float16 is by its high byte, float32, shape (2, 256): the first number, plus the second a low byte.

    All are exact: sign * 2^(exponent - 25) * (1024 + 256 * two bits of the high byte + the low byte), and without the
    1024 at the lowest exponent.
    """
    byte = torch.arange(256)
    exponent = byte // 4 % 32
    unit = (1 - byte // 128 * 2) * 2.0 ** (exponent.clamp(min=1) - 25).to(torch.float32)
    return torch.stack([unit * (byte % 4 * 256 + (exponent > 0) * 1024), unit])
