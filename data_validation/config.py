"""What is checked, and what stops a run."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from components.common.config import Config


class DensityRange(Config):
    """Bounds on the share of positive rows."""

    at_least: float = Field(0.0, ge=0, le=1)
    at_most: float = Field(1.0, ge=0, le=1)


class ValidationConfig(Config):
    """Limits on logs and examples; crossing one stops the run, except drift, which only shows in the report."""

    max_quarantined_share: float = Field(0.01, ge=0, le=1, description="of a log's rows on one day")
    min_impressions_per_day: int = Field(1, ge=1)
    min_actions_per_day: int = Field(1, ge=0)
    sample_rows: int = Field(20_000, ge=100, description="rows of each log that Great Expectations looks at")
    label_density: dict[Literal["clicked", "good_clicked", "add_to_carts", "checkouts"], DensityRange] = Field(
        {}, description="share of a day's impressions with a positive label"
    )
    max_drift: float = Field(0.3, gt=0, le=1, description="L-infinity distance of a feature to the day before; warns")
