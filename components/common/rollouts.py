"""Records of rollouts: versions that were taken back and why, what to go back to, and how a run's rollout ended."""

from __future__ import annotations

from datetime import date, datetime
from typing import Any, Literal

from components.common.config import Config
from components.common.layout import Store
from components.common.records import find_record
from components.common.storage import list_names

Result = Literal["serving", "rolled_back", "failed"]


class RolledBack(Config):
    """A version that was taken back from a deployment's servers.

    Attributes:
        version: Which.
        kept: The version that answers in its place.
        at: When that was decided, UTC.
        reasons: Why.
        is_fault: Whether it is the version's: then it is not tried again by the same limits.
        figures: What the servers had counted of both versions.
        limits: What these were judged by; empty if somebody took it back.
    """

    version: str
    kept: str
    at: datetime
    reasons: tuple[str, ...]
    is_fault: bool
    figures: dict[str, float] = {}
    limits: dict[str, Any] = {}

    def __str__(self) -> str:
        """One line for people."""
        return (
            f"{self.version[:12]} was taken back at {self.at:%Y-%m-%d %H:%M:%S} UTC, {self.kept[:12]} answers: "
            f"{'; '.join(self.reasons)}"
        )


class Replaced(Config):
    """The newest version that answered before another one did."""

    version: str
    by: str


class RolloutOutcome(Config):
    """How the rollout at the end of a run ended.

    Attributes:
        deployment: Whose servers were rolled out to.
        version: The version in production, which they were to answer with.
        result: `serving`: they do. `rolled_back`: it was taken back, by this run or an earlier one. `failed`: servers
            or records were not as they must be; the next run tries again.
        reasons: Why, if they do not.
        figures: What the servers had counted of both versions when it was decided.
    """

    deployment: str
    version: str
    result: Result
    reasons: tuple[str, ...] = ()
    figures: dict[str, float] = {}

    def __str__(self) -> str:
        """One line for people."""
        what = {"serving": "is served", "rolled_back": "is rolled back", "failed": "could not be rolled out"}[
            self.result
        ]
        why = f": {'; '.join(self.reasons)}" if self.reasons else ""
        return f"{self.deployment}: {self.version[:12]} {what}{why}"


def rolled_back_uri(store: Store, deployment: str, version: str) -> str:
    """The record of why a version was taken back from a deployment's servers."""
    return store.rollouts(deployment, "rolled_back", f"{version}.json")


def replaced_uri(store: Store, deployment: str) -> str:
    """The record of which version a deployment's servers answered with before."""
    return store.rollouts(deployment, "replaced.json")


def rollout_uri(store: Store, pipeline: str, event_date: date) -> str:
    """The record of how the rollout of a run ended; no deployment has a name with an underscore."""
    return store.rollouts("of_runs", pipeline, f"event_date={event_date}.json")


def find_rolled_back(store: Store, deployment: str, version: str) -> RolledBack | None:
    """Why a version was taken back; None if it was not."""
    remedy = "delete it to have the version tried again"
    return find_record(rolled_back_uri(store, deployment, version), RolledBack, remedy)


def rolled_back_in(store: Store, deployment: str) -> list[RolledBack]:
    """All versions that were taken back from a deployment's servers, the last one last."""
    names = list_names(store.rollouts(deployment, "rolled_back"))
    found = [find_rolled_back(store, deployment, name.removesuffix(".json")) for name in names]
    return sorted((record for record in found if record is not None), key=lambda record: record.at)


def find_replaced(store: Store, deployment: str) -> Replaced | None:
    """What to go back to; None before the first rollout."""
    remedy = "delete it, and roll out to the version by its name"
    return find_record(replaced_uri(store, deployment), Replaced, remedy)


def read_rollout(store: Store, pipeline: str, event_date: date) -> RolloutOutcome | None:
    """How a run's rollout ended; None if it had none."""
    return find_record(rollout_uri(store, pipeline, event_date), RolloutOutcome, "delete it, and run the day again")
