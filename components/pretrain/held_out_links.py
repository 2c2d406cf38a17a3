"""New edges of the window's last day, and how high the graph stage ranks them among all entities."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from components.engagement.edge_batches import Batches, EdgeBatch
from components.engagement.edge_stream import Edges, EdgeStream
from components.engagement.vocabulary import Known
from components.features.feature_list import FeatureConfig
from components.pretrain.config import PretrainConfig
from components.pretrain.entity_model import EntityModel, direction
from components.pretrain.link_prediction import scores
from components.pretrain.ranks import filtered_ranks, pair_keys
from components.tables.model_state import ModelState
from components.tables.processes import Share

# Edges are drawn before it is known which of them are new.
_DRAWN_FOR_ONE = 4


@dataclass(frozen=True)
class HeldOutLinks:
    """Held-out edges of a relation that no earlier day of the window has, and what else is true of their ends.

    Attributes:
        asked: The edges.
        true: Every edge of the whole window that shares an end with them.
    """

    asked: EdgeBatch
    true: EdgeBatch

    @classmethod
    def of_all(
        cls, config: PretrainConfig, features: FeatureConfig, known: dict[str, Known], window: EdgeStream, day: Edges
    ) -> list[HeldOutLinks]:
        """Draw up to `hits.max_edges` of each relation; the window before is read once, and held where it is needed."""
        numbers = [*range(len(config.relations))]
        cutter = Batches(config.relations, features, known, numbers, Share())
        on_day = {number: _distinct([cutter.admitted(day, number)]) for number in numbers}
        drawn = {
            number: _some(edges, _DRAWN_FOR_ONE * config.hits.max_edges, config.seed)
            for number, edges in on_day.items()
        }
        before = {
            number: EdgeBatch(number, on_day[number].sources[:0], on_day[number].targets[:0]) for number in numbers
        }
        for pool in window.pools():
            for number in numbers:
                near = _sharing_an_end(cutter.admitted(pool, number), drawn[number])
                before[number] = _distinct([before[number], near])
        links = []
        for number in numbers:
            earlier = before[number]
            is_new = ~np.isin(_keys(drawn[number]), _keys(earlier))
            asked = _rows(drawn[number], np.flatnonzero(is_new)[: config.hits.max_edges])
            if len(asked.sources):
                links.append(cls(asked, _sharing_an_end(_distinct([earlier, on_day[number]]), asked)))
        return links

    @torch.no_grad()
    def ranks(self, state: ModelState[EntityModel], config: PretrainConfig, known: dict[str, Known]) -> np.ndarray:
        """Filtered ranks of both ends of each edge, float64, shape (2 n,); all processes at once."""
        state.model.eval()
        relation, found = config.relations[self.asked.relation], []
        for is_reverse, ends, entities in (
            (False, ("sources", "targets"), (relation.source, relation.target)),
            (True, ("targets", "sources"), (relation.target, relation.source)),
        ):

            def score(
                heads: np.ndarray,
                tails: np.ndarray,
                number: int = direction(config.relations, self.asked.relation, is_reverse),
                entities: tuple[str, str] = entities,
            ) -> Tensor:
                assert config.graph is not None
                ids = (torch.from_numpy(part).to(state.process.device) for part in (heads, tails))
                vectors = state.model.vectors([*zip(entities, ids, strict=True)])
                return scores(state.model.net, config.graph.model, number, *vectors)

            (heads, tails), true = ([getattr(part, end) for end in ends] for part in (self.asked, self.true))
            found.append(filtered_ranks(score, heads, tails, (true[0], true[1]), known[entities[1]].ids))
        return np.concatenate(found)


def link_figures(links: list[HeldOutLinks], ranks: list[np.ndarray], config: PretrainConfig) -> dict[str, Any]:
    """Mean reciprocal rank and Hits@10 of all held-out edges together, and of each relation; empty without any."""
    if not links:
        return {}
    named = {config.relations[link.asked.relation].name: own for link, own in zip(links, ranks, strict=True)}
    together = np.concatenate(ranks)
    by_relation = {name: {"edges": len(own) // 2, **_of_ranks(own)} for name, own in named.items()}
    return {**_of_ranks(together), "by_relation": by_relation}


def _of_ranks(ranks: np.ndarray) -> dict[str, float]:
    return {"mrr": float((1 / ranks).mean()), "hits_at_10": float((ranks <= 10).mean())}


def _distinct(parts: list[EdgeBatch]) -> EdgeBatch:
    """Every edge of some parts of one relation once."""
    pairs = np.unique(np.concatenate([np.stack([part.sources, part.targets], axis=1) for part in parts]), axis=0)
    return EdgeBatch(parts[0].relation, pairs[:, 0], pairs[:, 1])


def _some(edges: EdgeBatch, most: int, seed: int) -> EdgeBatch:
    chosen = np.random.default_rng([seed, 6, edges.relation]).permutation(len(edges.sources))
    return _rows(edges, chosen[:most])


def _rows(edges: EdgeBatch, rows: np.ndarray) -> EdgeBatch:
    return EdgeBatch(edges.relation, edges.sources[rows], edges.targets[rows])


def _sharing_an_end(edges: EdgeBatch, others: EdgeBatch) -> EdgeBatch:
    return _rows(edges, np.flatnonzero(np.isin(edges.sources, others.sources) | np.isin(edges.targets, others.targets)))


def _keys(edges: EdgeBatch) -> np.ndarray:
    return pair_keys(edges.sources, edges.targets)
