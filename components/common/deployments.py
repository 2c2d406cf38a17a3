"""What a deployment serves: one record in the store that servers start from and a rollout moves along.

The three phases of a rollout (Su et al. 2025, 2508.05700): the new ranker beside the old one; the new tables, and
requests routed by version; the old version retired.
"""

from __future__ import annotations

import re
from typing import ClassVar, Literal

from pydantic import Field, model_validator

from components.common.config import GrownConfig
from components.common.errors import InputError
from components.common.layout import Store
from components.common.records import find_record, write_record
from components.common.releases import known_pointer

DEPLOYMENT_NAME = "[a-z0-9][a-z0-9-]*"
Phase = Literal["steady", "ranker", "tables", "routing", "retiring"]


class Deployment(GrownConfig):
    """Which versions the tiers hold, and which of them answers.

    Attributes:
        current: The version that answers, or answered before the rollout; while retiring, the one that stays.
        other: The version that comes, or while retiring the one that goes.
        phase: `steady`, or where the rollout is.
        share: Of users that are routed to `other`; only while routing.
        shadow_share: Of requests that `current` answers and `other` scores as well; only while both have their tables.
    """

    later: ClassVar[tuple[str, ...]] = ("shadow_share",)

    current: str
    other: str = ""
    phase: Phase = "steady"
    share: float = Field(0.0, ge=0, le=1)
    shadow_share: float = Field(0.0, ge=0, le=1)

    @model_validator(mode="after")
    def _check(self) -> Deployment:
        if (self.phase == "steady") != (not self.other) or self.other == self.current:
            raise ValueError(f"phase {self.phase} with other = {self.other[:12]!r} beside {self.current[:12]!r}")
        if self.share and self.phase != "routing":
            raise ValueError(f"share = {self.share} in phase {self.phase}; only routing has one")
        if self.shadow_share and self.phase not in ("tables", "routing"):
            raise ValueError(
                f"shadow_share = {self.shadow_share} in phase {self.phase}; only tables and routing have one"
            )
        return self

    @property
    def rankers(self) -> tuple[str, ...]:
        """Versions whose ranker is loaded."""
        return (self.current,) if self.phase in ("steady", "retiring") else (self.current, self.other)

    @property
    def tables(self) -> tuple[str, ...]:
        """Versions whose tables are loaded; those that go do so after the ranker that asks them."""
        return (self.current,) if self.phase in ("steady", "ranker") else (self.current, self.other)

    @property
    def routes(self) -> dict[str, float]:
        """Versions that answer requests which name none, with their shares of the users."""
        shares = {self.current: 1 - self.share, self.other: self.share}
        return {version: share for version, share in shares.items() if share > 0}


def _uri(store: Store, name: str) -> str:
    if not re.fullmatch(DEPLOYMENT_NAME, name):
        raise InputError(f"deployment {name[:80]!r}: a name has small letters, digits and hyphens only")
    return store.deployment(name)


def read_deployment(store: Store, name: str) -> Deployment | None:
    """A deployment's record, or None before the first.

    Raises:
        InputError: If it is damaged, or the name is none.
    """
    remedy = "restore it, or delete it to begin with CURRENT"
    return find_record(_uri(store, name), Deployment, remedy)


def known_deployment(store: Store, name: str) -> Deployment:
    """The record of a deployment that was served before.

    Raises:
        InputError: If there is none.
    """
    deployment = read_deployment(store, name)
    if deployment is None:
        raise InputError(f"{store.deployment(name)}: no such deployment; it begins when its servers first start")
    return deployment


def write_deployment(store: Store, name: str, deployment: Deployment) -> Deployment:
    """Write a deployment's record, atomically."""
    write_record(_uri(store, name), deployment)
    return deployment


def open_deployment(store: Store, name: str) -> Deployment:
    """A deployment's record; the first call makes it, of the version in production.

    Raises:
        InputError: If nothing is published yet.
    """
    deployment = read_deployment(store, name)
    if deployment is not None:
        return deployment
    return write_deployment(store, name, Deployment(current=known_pointer(store).version))
