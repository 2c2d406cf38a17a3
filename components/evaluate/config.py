"""How predictions are judged."""

from __future__ import annotations

from pydantic import Field

from components.common.config import Config
from components.features.objectives import DEFAULT_SERVED, ServedObjectives


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
    batch_size: int = Field(4096, ge=1)
