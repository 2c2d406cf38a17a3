"""How a rollout goes, and how it is told that it was taken back."""

from __future__ import annotations

from dataclasses import dataclass

from components.common.errors import InputError
from components.common.rollouts import RolledBack
from components.serve.config import RolloutLimits, check_shares
from components.serve.credentials import ClientCredentials


@dataclass(frozen=True)
class RolloutPlan:
    """How a rollout goes.

    Attributes:
        embedding_addresses: `host:port` of each server of the embedding tier; none if rankers hold tables themselves.
        ranker_addresses: Of each server of the ranker tier.
        shares: Of users that the new version gets, one after the other; the last is 1.
        hold_seconds: How long each share stays before the next.
        step_seconds: How long the servers may take to follow one step, restarts included.
        shadow_share: Of requests that the new version scores as well, before and while it answers some.
        limits: How much worse it may be before it is taken back; it is not watched if there are none.
        credentials: What the servers must show, and are shown.
    """

    embedding_addresses: tuple[str, ...]
    ranker_addresses: tuple[str, ...]
    shares: tuple[float, ...] = (1.0,)
    hold_seconds: float = 0.0
    step_seconds: float = 600.0
    shadow_share: float = 0.0
    limits: RolloutLimits | None = None
    credentials: ClientCredentials = ClientCredentials()

    def __post_init__(self) -> None:
        check_shares(self.shares)


class TakenBack(InputError):
    """A version was taken back from the servers, by this rollout or an earlier one.

    Attributes:
        record: Why.
    """

    def __init__(self, record: RolledBack, remedy: str = "") -> None:
        """Say what its record says."""
        super().__init__(f"{record}{remedy}")
        self.record = record
