"""How examples are made."""

from __future__ import annotations

from typing import Any

from pydantic import Field

from components.common.beam import LOCAL_RUNNER, BeamOptions
from components.common.config import Config, Seed


class JoinConfig(Config):
    """Sampling, sharding and the Beam runner."""

    negative_keep_rate: float = Field(1.0, gt=0, le=1, description="share of impressions without any positive kept")
    salt: Seed = Field(20170301, description="seed of the sampling hash; another salt keeps other negatives")
    max_duplicate_share: float = Field(
        0.01, ge=0, le=1, description="impressions of a day whose id was used before; more of them stop the run"
    )
    rows_per_shard: int = Field(500_000, ge=1, description="log rows of some users that a worker joins at once")
    rows_per_file: int = Field(250_000, ge=1, description="impressions of a day per file of examples")
    beam_options: BeamOptions = LOCAL_RUNNER

    @property
    def sampling(self) -> dict[str, Any]:
        """What decides which negatives are kept, as plain values."""
        return self.model_dump(mode="json", include={"negative_keep_rate", "salt"})
