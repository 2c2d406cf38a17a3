"""What is published for requests."""

from __future__ import annotations

from pydantic import Field

from components.common.config import Config


class OnlineConfig(Config):
    """Users' recent actions and entities' engagement, which servers complete requests with."""

    max_actions: int = Field(
        20_000, ge=1, description="newest actions of a user that are kept; servers would refuse to take more"
    )
