"""How predictions are judged."""

from __future__ import annotations

from pydantic import Field

from components.common.config import Config
from components.features.objectives import DEFAULT_SERVED, ServedObjectives


class SliceConfig(Config):
    """Rows with one value of a categorical feature, each value a slice."""

    column: str = Field(description="a categorical feature")
    values: list[int | str] = Field(min_length=1, max_length=50, description="as they are in the logs")


class EvaluationConfig(Config):
    """Bootstrap and yardstick."""

    served: ServedObjectives = DEFAULT_SERVED
    num_replicates: int = Field(
        200, ge=20, le=10_000, description="bootstrap replicates of each served AUC, over users"
    )
    logistic_regression: bool = Field(
        True, description="score a logistic regression on the same features beside the arms"
    )
    regression_c: float = Field(0.1, gt=0, description="inverse L2 strength of the logistic regression")
    regression_days: int = Field(60, ge=1, description="newest days that the logistic regression is fitted on")
    slices: list[SliceConfig] = Field([], description="AUC and calibration of each of these, beside those of all rows")
    known_users: bool = Field(True, description="and of users with and without earlier actions")
    max_unknown_ids: float = Field(
        0.5, gt=0, le=1, description="an alarm tells of a larger share of rows whose exact id has no row of its own"
    )
    batch_size: int = Field(4096, ge=1)
