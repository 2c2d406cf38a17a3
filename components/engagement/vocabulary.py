"""Which ids edges join, and how often."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from components.engagement.edge_stream import Edges
from components.features.edges import Relation
from components.features.feature_list import FeatureConfig
from components.features.hashing import added_up


@dataclass(frozen=True)
class Known:
    """The ids of one entity that edges admit.

    Attributes:
        ids: Distinct, sorted, each below the table's `num_ids`; int64, shape (k,).
        degrees: Edges of each, int64, shape (k,).
        num_seen: Distinct ids on any edge, the others included.
    """

    ids: np.ndarray
    degrees: np.ndarray
    num_seen: int

    @cached_property
    def _shares(self) -> np.ndarray:
        return np.cumsum(self.degrees) / self.degrees.sum()

    def draw(self, generator: np.random.Generator, size: int, by_degree: bool = False) -> np.ndarray:
        """Draw ids, uniformly or in proportion to their degrees; int64, shape (size,)."""
        if not by_degree:
            return self.ids[generator.integers(0, len(self.ids), size)]
        places = np.searchsorted(self._shares, generator.random(size), side="right")
        return self.ids[places.clip(max=len(self.ids) - 1)]

    def has(self, ids: np.ndarray) -> np.ndarray:
        """Which of some ids are known, bool, shape (n,)."""
        return self.places(ids) >= 0

    def places(self, ids: np.ndarray) -> np.ndarray:
        """Where each stands in `ids`, or -1; int64, shape (n,)."""
        if not len(self.ids):
            return np.full(len(ids), -1)
        found = np.searchsorted(self.ids, ids).clip(max=len(self.ids) - 1)
        return np.where(self.ids[found] == ids, found, -1)


def count_ids(
    pools: Iterable[Edges],
    relations: tuple[Relation, ...],
    chosen: list[int],
    features: FeatureConfig,
    admit_after: int,
) -> dict[str, Known]:
    """Count the ids of every entity on the edges of some relations, given by number.

    Memory follows the distinct ids.
    """
    entities = dict.fromkeys(end for number in chosen for end in (relations[number].source, relations[number].target))
    counted = {entity: (np.zeros(0, dtype=np.int64), np.zeros(0, dtype=np.int64)) for entity in entities}
    for edges in pools:
        for number in chosen:
            relation, own = relations[number], edges.relation == number
            for entity, ids in ((relation.source, edges.source), (relation.target, edges.target)):
                known_ids, degrees = counted[entity]
                together = np.concatenate([known_ids, ids[own] % features.num_ids[entity]])
                counted[entity] = added_up(together, np.concatenate([degrees, edges.count[own]]))
    known = {}
    for entity, (ids, degrees) in counted.items():
        admitted = degrees >= admit_after
        known[entity] = Known(ids[admitted], degrees[admitted], len(ids))
    return known
