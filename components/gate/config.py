"""Thresholds of the gate and the release rules."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from components.common.config import Config
from components.common.releases import MIN_GAIN_PERCENT
from components.features.objectives import DEFAULT_SERVED, ServedObjectives


class GateConfig(Config):
    """When a candidate is blessed, and what is published when."""

    served: ServedObjectives = DEFAULT_SERVED
    min_gain_percent: float = Field(
        MIN_GAIN_PERCENT, description="cumulative AUC gain that blesses (Qiu et al. 2025, section 4.4)"
    )
    num_days: int = Field(5, ge=1, description="newest days, scored by both arms, that the gain is taken over")
    max_objective_loss_percent: float = Field(
        0.2, ge=0, description="no served objective may lose more over the window"
    )
    min_positives: int = Field(
        100, ge=1, description="of every served objective, over the window, and on the first model's day"
    )
    min_day_positives: int = Field(
        10, ge=1, description="of every served objective on the newest day, to replace what is served"
    )
    min_calibration: float = Field(0.8, gt=0, description="mean prediction over mean label, pooled over the window")
    max_calibration: float = Field(1.25, gt=0)
    calibration_sigmas: float = Field(
        2.0,
        ge=0,
        description="standard errors of the expected positives by which a calibration must be out of bounds to count",
    )
    min_auc: float = Field(0.6, ge=0, le=1, description="floor of every served objective for the first model")
    first: Literal["best", "control"] = Field(
        "best", description="which arm the first model may be: the best that passes the floors, or the control alone"
    )
    max_refresh_loss_percent: float = Field(
        1.0, ge=0, description="a fresh checkpoint may lose this much to the served version on the newest day"
    )
    on_blessing: Literal["experiment", "promote"] = Field(
        "experiment", description="publish a blessed candidate to its own channel, or make it the production arm"
    )

    @model_validator(mode="after")
    def _check_calibration(self) -> GateConfig:
        if self.min_calibration >= self.max_calibration:
            raise ValueError(
                f"min_calibration = {self.min_calibration} is not below max_calibration = "
                f"{self.max_calibration}; widen them"
            )
        return self
