"""Gates that mix a row that is trained with the pretrained one beside it."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

_ROWS_AT_ONCE = 65_536


class RowGates(nn.Module):
    """One gate a table: g = sigmoid(W [own; pretrained] + b), and g * own + (1 - g) * pretrained, number by number.

    W sees the directions of both rows, whose lengths change in training, and begins with zeros: with the mean of both.
    A row that was not pretrained, all zeros, is the own one. Nothing but the two rows decides: what is served is mixed
    once, at export.
    """

    def __init__(self, tables: tuple[str, ...], dim: int) -> None:
        """Make a gate for each table."""
        super().__init__()
        self._places = {table: place for place, table in enumerate(tables)}
        self.gates = nn.ModuleList(nn.Linear(2 * dim, dim) for _ in tables)
        for parameter in self.gates.parameters():
            nn.init.zeros_(parameter)

    def forward(self, table: str, own: Tensor, pretrained: Tensor) -> Tensor:
        """Mix rows of a table with the pretrained rows of the same ids, shape (k, dim) each."""
        directions = torch.cat([functional.normalize(own, dim=1), functional.normalize(pretrained, dim=1)], dim=1)
        share = torch.sigmoid(self.gates[self._places[table]](directions).to(own.dtype))
        is_pretrained = (pretrained != 0).any(dim=1, keepdim=True)
        return torch.where(is_pretrained, torch.lerp(pretrained, own, share), own)

    @torch.no_grad()
    def mixed_table(self, table: str, own: Tensor, pretrained: Tensor) -> Tensor:
        """All rows of a table, mixed."""
        parts = zip(own.split(_ROWS_AT_ONCE), pretrained.split(_ROWS_AT_ONCE), strict=True)
        return torch.cat([self(table, *part) for part in parts])
