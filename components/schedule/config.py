"""Which days make the batch."""

from __future__ import annotations

from datetime import date

from pydantic import Field

from components.common.config import Config


class ScheduleConfig(Config):
    """The batch days; daily training starts with the day after them."""

    first_day: date = Field(description="first day of the batch; leave the days before it for histories")
    num_batch_days: int = Field(30, ge=1)
