"""The user's earlier actions to one vector."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from components.ranker.config import ModelConfig


class SequenceEncoder(nn.Module):
    """A Transformer encoder over the positions, averaged over those in use (Qiu et al. 2025, section 4.5)."""

    def __init__(self, input_dim: int, length: int, config: ModelConfig) -> None:
        """Project positions of `input_dim` to `config.sequence_dim`."""
        super().__init__()
        self.project = nn.Linear(input_dim, config.sequence_dim)
        self.position = nn.Parameter(torch.randn(length, config.sequence_dim) * 0.02)
        layer = nn.TransformerEncoderLayer(
            config.sequence_dim,
            config.sequence_heads,
            dim_feedforward=2 * config.sequence_dim,
            dropout=config.dropout,
            batch_first=True,
            norm_first=True,
        )
        self.encoder = nn.TransformerEncoder(layer, config.sequence_layers, enable_nested_tensor=False)

    def forward(self, sequence: Tensor, lengths: Tensor) -> Tensor:
        """Encode (n, L, input_dim) with lengths (n,) to (n, sequence_dim); a row without actions gives zeros."""
        places = torch.arange(sequence.shape[1], device=sequence.device)
        used = places < lengths[:, None]
        # Attention over no position is NaN: rows without actions look at a padded position, and are zeroed below.
        visible = places < lengths.clamp(min=1)[:, None]
        encoded = self.encoder(self.project(sequence) + self.position, src_key_padding_mask=~visible)
        weights = used.to(encoded.dtype)[:, :, None]
        return (encoded * weights).sum(dim=1) / weights.sum(dim=1).clamp(min=1.0)
