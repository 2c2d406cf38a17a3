"""Thresholds of the gate and the release rules."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from components.common.config import Config
from components.common.releases import MIN_GAIN_PERCENT
from components.common.trials import Evidence, Kind
from components.features.objectives import DEFAULT_SERVED, ServedObjectives


class GateConfig(Config):
    """When a candidate is blessed, and what is published when."""

    served: ServedObjectives = DEFAULT_SERVED
    evidence: Evidence = Field(
        "confident",
        description="confident: the gain reaches min_gain_percent and is surely above zero; point: it reaches it, "
        "looked at every day (Qiu et al. 2025, to the letter)",
    )
    min_gain_percent: float = Field(
        MIN_GAIN_PERCENT, description="cumulative AUC gain that blesses (Qiu et al. 2025, section 4.4)"
    )
    trial_days: int = Field(28, ge=1, description="scored days after which a trial ends")
    look_every_days: int = Field(7, ge=1, description="scored days between two looks that may decide a confident trial")
    alpha: float = Field(
        0.05,
        gt=0,
        lt=0.5,
        description="chance that an equal recipe is blessed, over all trials that begin within alpha_period_days",
    )
    alpha_period_days: int = Field(90, ge=1, description="a trial takes half of what the earlier ones in it have left")
    power: float = Field(0.8, gt=0, lt=1, description="chance of a blessing that the days still needed are counted for")
    start_sd_percent: float | None = Field(
        None,
        ge=0,
        description="standard deviation of an arm's cumulative AUC over random starts, in percent of it, where no arm "
        "of a trial has replicas to tell it",
    )
    num_days: int = Field(
        5, ge=1, description="newest days that calibration is pooled over, and the first look of evidence: point"
    )
    max_objective_loss_percent: float = Field(0.2, ge=0, description="no served objective may lose more over the trial")
    min_positives: int = Field(
        100, ge=1, description="of every served objective, over a trial, and over the first model's num_days"
    )
    min_day_positives: int = Field(
        10, ge=1, description="of every served objective on the newest day, to replace what is served"
    )
    min_calibration: float = Field(0.8, gt=0, description="mean prediction over mean label, pooled over num_days")
    max_calibration: float = Field(1.25, gt=0)
    calibration_sigmas: float = Field(
        2.0,
        ge=0,
        description="standard errors of the expected positives by which a calibration must be out of bounds to count",
    )
    min_auc: float = Field(0.6, ge=0, le=1, description="floor of every served objective for the first model")
    max_refresh_loss_percent: float = Field(
        1.0, ge=0, description="a fresh checkpoint may lose this much to the served version on the newest day"
    )
    on_blessing: Literal["experiment", "promote"] = Field(
        "experiment", description="publish a blessed candidate to its own channel, or make it the production arm"
    )
    on_rejection: Literal["retire", "keep"] = Field(
        "retire", description="a rejected arm is trained no further, or trained and scored on without another trial"
    )
    probation_days: int = Field(
        14,
        ge=0,
        description="scored days that an arm which was replaced has to show that its successor is worse; 0: none",
    )

    @model_validator(mode="after")
    def _check_bounds(self) -> GateConfig:
        if self.min_calibration >= self.max_calibration:
            raise ValueError(
                f"min_calibration = {self.min_calibration} is not below max_calibration = "
                f"{self.max_calibration}; widen them"
            )
        first, named = (
            (self.num_days, "num_days") if self.evidence == "point" else (self.look_every_days, "look_every_days")
        )
        if first > self.trial_days:
            raise ValueError(
                f"{named} = {first} is more than trial_days = {self.trial_days}: no look would come; change one of them"
            )
        return self

    def looks(self, kind: Kind) -> tuple[int, ...]:
        """After how many scored days a trial is decided; none if there are no such trials."""
        last = self.trial_days if kind == "candidate" else self.probation_days
        first, step = (self.num_days, 1) if self.evidence == "point" else (self.look_every_days,) * 2
        return (*range(first, last, step), last) if last else ()
