"""Predictions of a ranker, as they would be served."""

from __future__ import annotations

import numpy as np
import torch

from components.ranker.dataset import ExampleSet
from components.ranker.ranker import LogitCorrection, Ranker


@torch.no_grad()
def predict(model: Ranker, negative_keep_rate: float, examples: ExampleSet, batch_size: int) -> np.ndarray:
    """Probabilities of un-sampled impressions, float32, shape (n, objectives)."""
    model.eval()
    correction = LogitCorrection(negative_keep_rate)
    parts = [correction(model(batch)).numpy() for batch in examples.in_order(batch_size)]
    return np.concatenate(parts) if parts else np.zeros((0, 0), dtype=np.float32)
