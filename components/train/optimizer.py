"""Adam with a learning rate of its own for the tables."""

from __future__ import annotations

import torch

from components.train.config import OptimizerConfig
from components.train.model.ranker import Ranker


def make_optimizer(model: Ranker, config: OptimizerConfig) -> torch.optim.Optimizer:
    """`torch.optim.Adam` over two groups: the dense net, and the embedding tables at `table_multiplier` times its rate.

    Rows that are not in a batch are updated too, from their moments: this is dense Adam.
    """
    groups = [
        {"params": list(model.net.parameters()), "lr": config.learning_rate},
        {"params": list(model.embeddings.parameters()), "lr": config.learning_rate * config.table_multiplier},
    ]
    return torch.optim.Adam(groups, betas=config.betas, eps=config.eps, fused=True)
