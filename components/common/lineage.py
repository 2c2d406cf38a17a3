"""Where a model comes from."""

from __future__ import annotations

from datetime import date

from components.common.config import Config


class Lineage(Config):
    """Where a checkpoint, and the version that is made of it, comes from.

    Attributes:
        arm: Its recipe's name.
        first_day: First day that it was trained on.
        trained_through: Last day that it was trained on.
        parent: Digest of the checkpoint that it was warm-started from; empty after the batch.
        step: Updates so far.
        negative_keep_rate: Share of negatives in its training examples.
        recipe_digest: How it was trained, and how its examples were made: equal digests may be compared over days.
        left_out: Objectives that the batch had no positive of: their heads have learnt nothing, and answer nothing.
    """

    arm: str
    first_day: date
    trained_through: date
    parent: str
    step: int
    negative_keep_rate: float
    recipe_digest: str = ""
    left_out: tuple[str, ...] = ()
