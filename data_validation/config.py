"""What is checked, and what stops a run."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, field_validator
from tensorflow_metadata.proto.v0 import anomalies_pb2

from components.common.beam import LOCAL_RUNNER, BeamOptions
from components.common.config import Config

Severity = Literal["error", "warning", "ignore"]
# Days differ: what compares them shows in the report, unless it is made an error.
_COMPARISONS: dict[str, Severity] = {
    "COMPARATOR_L_INFTY_HIGH": "warning",
    "COMPARATOR_JENSEN_SHANNON_DIVERGENCE_HIGH": "warning",
    "COMPARATOR_LOW_NUM_EXAMPLES": "warning",
    "COMPARATOR_HIGH_NUM_EXAMPLES": "warning",
}


class DensityRange(Config):
    """Bounds on the share of positive rows."""

    at_least: float = Field(0.0, ge=0, le=1)
    at_most: float = Field(1.0, ge=0, le=1)


class VolumeRange(Config):
    """Bounds on a day's impressions, as a share of the median of the days before."""

    at_least: float = Field(0.3, ge=0)
    at_most: float = Field(3.0, gt=0)
    num_days: int = Field(7, ge=1, description="days before that make the median")


class ValidationConfig(Config):
    """Limits on logs and examples, and which of them stop a run when they are crossed."""

    max_quarantined_share: float = Field(0.01, ge=0, le=1, description="of a log's rows on one day")
    max_user_rows_per_day: int = Field(
        10_000, ge=1, description="rows of one user in a log on one day; all of them go to quarantine beyond it"
    )
    min_impressions_per_day: int = Field(1, ge=1)
    min_actions_per_day: int = Field(1, ge=0)
    sample_rows: int = Field(20_000, ge=100, description="rows of each log that Great Expectations looks at")
    label_density: dict[Literal["clicked", "good_clicked", "add_to_carts", "checkouts"], DensityRange] = Field(
        {}, description="share of a day's impressions with a positive label"
    )
    volume: VolumeRange = VolumeRange()
    max_drift: float = Field(0.3, gt=0, le=1, description="L-infinity distance of an identifier to the day before")
    max_divergence: float = Field(
        0.3, gt=0, le=1, description="Jensen-Shannon divergence of a number to the day before, in bits"
    )
    reviewed_schema: str = Field(
        "", description="a schema as .pbtxt instead of the one that the feature list implies; in YAML, name its file"
    )
    severities: dict[str, Severity] = Field({}, description="by anomaly type; comparisons of days warn, others stop")
    beam_options: BeamOptions = LOCAL_RUNNER

    @property
    def deciding(self) -> dict[str, Any]:
        """What decides the outcome, as plain values: not how Beam runs."""
        return self.model_dump(mode="json", exclude={"beam_options"})

    @field_validator("severities")
    @classmethod
    def _check_types(cls, severities: dict[str, Severity]) -> dict[str, Severity]:
        known = anomalies_pb2.AnomalyInfo.Type.keys()
        for name in severities:
            if name not in known:
                raise ValueError(f"{name!r} is no anomaly type of tensorflow-metadata, such as COMPARATOR_L_INFTY_HIGH")
        return severities

    def severity_of_types(self) -> dict[str, str]:
        """The severity of every anomaly type that is not simply an error."""
        return {**_COMPARISONS, **self.severities}
