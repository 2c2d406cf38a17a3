"""The demo's versions in a store of their own, behind servers of both tiers, and requests of the demo's logs."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from components.common import storage
from components.common.layout import Store
from components.common.releases import known_pointer
from components.serve.rollout import Rollout
from components.serve.rollout_plan import RolloutPlan
from tests.owed import Owed, owed_by
from tests.serving import PATIENT, BalancedLoad, Server, started_tiers

_REQUESTS = 100


@dataclass(frozen=True)
class DemoVersions:
    """Versions to serve, and what they owe.

    Attributes:
        store: A registry and no deployment.
        old: Digest of the version in production.
        new: Digest of another one.
        owed: Requests, and what both versions owe them.
    """

    store: Store
    old: str
    new: str
    owed: Owed

    @classmethod
    def copied(cls, demo: Store, root: str) -> DemoVersions:
        """Copy the demo's registry."""
        old = known_pointer(demo).version
        new = next(version for version in demo.versions() if version != old)
        shutil.copytree(storage.join_uri(demo.root, "registry"), storage.join_uri(root, "registry"))
        owed = owed_by(demo, max(demo.ledger_days()), (old, new), _REQUESTS)
        return cls(Store(root), old, new, owed)

    @contextmanager
    def served(self, num_tables: int = 2, num_rankers: int = 2) -> Iterator[DemoTiers]:
        """Start servers, which are killed afterwards."""
        with started_tiers(self.store.root, num_tables, num_rankers, *PATIENT) as (tables, rankers):
            yield DemoTiers(self, tables, rankers)


@dataclass(frozen=True)
class DemoTiers:
    """Servers of both tiers."""

    versions: DemoVersions
    tables: list[Server]
    rankers: list[Server]

    @property
    def servers(self) -> dict[str, Server]:
        """All of them by tier and number."""
        return {
            f"{tier}_{number}": server
            for tier, servers in (("embedding", self.tables), ("ranker", self.rankers))
            for number, server in enumerate(servers)
        }

    def load(self) -> BalancedLoad:
        """Clients of both protocols over all rankers, which never ask twice."""
        return BalancedLoad(self.versions.owed.tensors, self.versions.owed.expected, *self.rankers)

    def rollout(self, **plan: Any) -> Rollout:
        """A rollout to all servers."""
        tables, rankers = (tuple(server.address for server in tier) for tier in (self.tables, self.rankers))
        return Rollout(self.versions.store, "local", RolloutPlan(tables, rankers, **plan))
