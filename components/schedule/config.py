"""Which days make the batch, and when a day is trained on."""

from __future__ import annotations

from datetime import date

from pydantic import Field

from components.common.config import Config


class ScheduleConfig(Config):
    """The batch days; daily training starts with the day after them."""

    first_day: date = Field(description="first day of the batch; leave the days before it for histories")
    num_batch_days: int = Field(30, ge=1)
    train_immature: bool = Field(
        False,
        description="train on a day with the labels that are known when it ends, and score it when they are final",
    )
