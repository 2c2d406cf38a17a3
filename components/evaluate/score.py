"""Predictions of a checkpoint, as they would be served."""

from __future__ import annotations

import numpy as np
import torch

from components.train.checkpoint import TrainingState
from components.train.dataset import ExampleSet
from components.train.model.ranker import LogitCorrection


@torch.no_grad()
def predict(state: TrainingState, examples: ExampleSet, batch_size: int) -> np.ndarray:
    """Probabilities of un-sampled impressions, float32, shape (n, objectives)."""
    state.model.eval()
    correction = LogitCorrection(state.lineage.negative_keep_rate)
    parts = [correction(state.model(batch)).numpy() for batch in examples.in_order(batch_size)]
    return np.concatenate(parts) if parts else np.zeros((0, 0), dtype=np.float32)
