"""One small MLP per objective."""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn

from components.features.objectives import OBJECTIVES
from components.ranker.joint_linear import joint_linear


class Heads(nn.Module):
    """Logits of all objectives from a shared representation."""

    def __init__(self, input_dim: int, head_size: int) -> None:
        """Make a head per objective."""
        super().__init__()
        self.heads = nn.ModuleDict(
            {
                objective.name: nn.Sequential(nn.Linear(input_dim, head_size), nn.ReLU(), nn.Linear(head_size, 1))
                for objective in OBJECTIVES
            }
        )

    @torch.no_grad()
    def start_at(self, rates: Tensor) -> None:
        """Let a new model predict the share of positives, shape (objectives,), instead of one half."""
        for head, rate in zip(self.heads.values(), rates.clamp(1e-4, 1 - 1e-4), strict=True):
            assert isinstance(head, nn.Sequential) and isinstance(head[-1], nn.Linear)
            head[-1].bias.fill_(torch.logit(rate))

    def forward(self, shared: Tensor) -> Tensor:
        """(n, input_dim) to logits (n, objectives)."""
        if not self.training:
            return torch.cat([head(shared) for head in self.heads.values()], dim=1)
        layers = [cast("list[nn.Linear]", [*head.children()]) for head in self.heads.values()]
        firsts, lasts = [layer[0] for layer in layers], [layer[-1] for layer in layers]
        hidden = torch.relu(torch.cat(joint_linear(shared, firsts), dim=1)).unflatten(1, (len(lasts), -1))
        weight = torch.cat([last.weight for last in lasts])
        return (hidden * weight).sum(2) + torch.cat([last.bias for last in lasts])
