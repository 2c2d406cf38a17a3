"""Imported by the process that a soak's steps are forked from: makes an arm diverge."""

from __future__ import annotations

import os
from datetime import date
from typing import Any

import torch

from components.common.layout import Store
from components.train import one_model
from components.train.training_state import TrainingState

# Its value is the arm.
DIVERGING = "AFTERCLICK_SOAK_DIVERGING"
_load_state = one_model.load_state


def _load_diverging_state(store: Store, arm: str, through: date, *how: Any) -> tuple[TrainingState, str]:
    state, digest = _load_state(store, arm, through, *how)
    if os.environ.get(DIVERGING) == arm:
        with torch.no_grad():
            next(state.model.net.parameters()).fill_(float("inf"))
    return state, digest


one_model.load_state = _load_diverging_state
