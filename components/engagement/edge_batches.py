"""Batches of both stages: which edges, and what they are told from."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from components.engagement.edge_stream import Edges, EdgeStream
from components.engagement.vocabulary import Known
from components.features.edges import Relation
from components.features.feature_list import FeatureConfig
from components.tables.processes import Share


@dataclass(frozen=True)
class EdgeBatch:
    """Edges of one relation.

    Attributes:
        relation: Its number.
        sources: Ids below the table's `num_ids`, int64, shape (n,).
        targets: Likewise.
    """

    relation: int
    sources: np.ndarray
    targets: np.ndarray


class Batches:
    """Cuts pools of edges into batches; edges with an id that is not admitted are left out."""

    def __init__(
        self,
        relations: tuple[Relation, ...],
        features: FeatureConfig,
        known: dict[str, Known],
        chosen: list[int],
        share: Share,
    ) -> None:
        """Cut edges of the relations `chosen`, given by number; this process takes its `share` of each batch."""
        self._relations, self._features, self._known = relations, features, known
        self._chosen, self._share = chosen, share

    def admitted(self, edges: Edges, number: int) -> EdgeBatch:
        """The edges of a relation whose ids are both admitted."""
        own, relation = edges.take(edges.relation == number), self._relations[number]
        sources, targets = (
            ids % self._features.num_ids[entity]
            for ids, entity in ((own.source, relation.source), (own.target, relation.target))
        )
        both = self._known[relation.source].has(sources) & self._known[relation.target].has(targets)
        return EdgeBatch(number, sources[both], targets[both])

    def together(self, stream: EdgeStream, batch_size: int, seed: int) -> Iterator[EdgeBatch]:
        """This process's part of the pairs of all relations, mixed; the relation is that of none."""
        for edges in stream.pools(seed):
            mixed = edges.take(np.isin(edges.relation, self._chosen))
            parts = [self.admitted(mixed, number) for number in self._chosen]
            sources, targets = (
                np.concatenate([getattr(part, end) for part in parts]) for end in ("sources", "targets")
            )
            order = np.random.default_rng([seed, 2]).permutation(len(sources))
            yield from self._cut(EdgeBatch(-1, sources[order], targets[order]), batch_size)

    def by_relation(self, stream: EdgeStream, batch_size: int, seed: int) -> Iterator[EdgeBatch]:
        """This process's part of batches of one relation each, in random order; a relation's weight repeats them."""
        for place, edges in enumerate(stream.pools(seed)):
            cut: list[EdgeBatch] = []
            for number in self._chosen:
                own = [*self._cut(self.admitted(edges, number), batch_size)]
                wanted = round(len(own) * self._relations[number].weight) if own else 0
                cut += [own[turn % len(own)] for turn in range(max(wanted, min(len(own), 1)))]
            for turn in np.random.default_rng([seed, 3, place]).permutation(len(cut)):
                yield cut[turn]

    def _cut(self, edges: EdgeBatch, batch_size: int) -> Iterator[EdgeBatch]:
        for start in range(0, len(edges.sources), batch_size):
            low, high, _ = self._share.of(start, min(start + batch_size, len(edges.sources)))
            yield EdgeBatch(edges.relation, edges.sources[low:high], edges.targets[low:high])


def engagement(relations: tuple[Relation, ...]) -> list[int]:
    """The numbers of the relations that are pairs of the contrastive stage."""
    return [number for number, relation in enumerate(relations) if relation.is_engagement]
