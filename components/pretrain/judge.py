"""How well tables foretell the window's last day."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch.nn import functional

from components.engagement.edge_batches import Batches, EdgeBatch, engagement
from components.engagement.edge_stream import Edges, EdgeStream
from components.engagement.vocabulary import Known
from components.features.feature_list import FeatureConfig
from components.pretrain.config import PretrainConfig
from components.pretrain.entity_model import EntityModel
from components.pretrain.held_out_links import HeldOutLinks, link_figures
from components.pretrain.link_prediction import scores
from components.pretrain.pretrainer import CONTRASTIVE, GRAPH
from components.pretrain.ranks import Candidates
from components.tables.model_state import ModelState
from components.tables.processes import Share

_K = 3
_NONE = np.zeros(0, dtype=np.int64)
_NOTHING, _NO_EDGES = Known(_NONE, _NONE, 0), EdgeBatch(-1, _NONE, _NONE)


@dataclass(frozen=True)
class HeldOut:
    """The engagement of the window's last day, of users and items that were known before.

    Attributes:
        uniform: Pairs among items drawn uniformly.
        by_degree: The same among items drawn by degree: popularity does not help there.
        popularity: Hit@3 of both, of items ranked by degree; empty without pairs.
        num_pairs: How many there were, before some of them were drawn.
        links: New edges for the graph stage.
    """

    uniform: Candidates
    by_degree: Candidates
    popularity: tuple[float, ...]
    num_pairs: int
    links: list[HeldOutLinks]

    @classmethod
    def of(
        cls,
        config: PretrainConfig,
        features: FeatureConfig,
        known_by_stage: dict[str, dict[str, Known]],
        window: EdgeStream,
        edges: Edges,
    ) -> HeldOut:
        """Draw from the held-out day's edges; `window` are those of the days before."""
        known = next(iter(known_by_stage.values()))
        numbers, items = engagement(config.relations), known.get("item_id", _NOTHING)
        cutter = Batches(config.relations, features, known, numbers, Share())
        parts = [cutter.admitted(edges, number) for number in numbers] + [_NO_EDGES]
        users, targets = (np.concatenate([getattr(part, end) for part in parts]) for end in ("sources", "targets"))
        pairs = np.unique(np.stack([users, targets], axis=1), axis=0)
        chosen = np.random.default_rng([config.seed, 5]).permutation(len(pairs))[: config.hits.max_pairs]
        distinct = (pairs[chosen, 0], pairs[chosen, 1])
        uniform, by_degree = (
            Candidates.draw(distinct, items, by_degree, config.hits.num_candidates, config.seed)
            for by_degree in (False, True)
        )

        def degree(_: np.ndarray, asked: np.ndarray) -> np.ndarray:
            return items.degrees[items.places(asked)]

        popularity = (uniform.hit_rate(degree, _K), by_degree.hit_rate(degree, _K)) if len(pairs) else ()
        links = []
        if GRAPH in known_by_stage and config.hits.max_edges:
            links = HeldOutLinks.of_all(config, features, known_by_stage[GRAPH], window, edges)
        return cls(uniform, by_degree, popularity, len(pairs), links)

    def figures(
        self, state: ModelState[EntityModel], config: PretrainConfig, known: dict[str, dict[str, Known]], stage: str
    ) -> dict[str, Any]:
        """Hit@3 of the tables after a stage's epoch, by the stage's own score; of the graph stage also link ranks."""
        found = self._hits(state, config, stage)
        if stage == GRAPH:
            ranks = [link.ranks(state, config, known[GRAPH]) for link in self.links]
            found |= link_figures(self.links, ranks, config)
        return found

    def _hits(self, state: ModelState[EntityModel], config: PretrainConfig, stage: str) -> dict[str, Any]:

        def score(users: np.ndarray, items: np.ndarray) -> np.ndarray:
            return _scores(state, config, stage, users, items)

        if not self.num_pairs:
            return {}
        return {"hit_at_3": self.uniform.hit_rate(score, _K), "hit_at_3_by_degree": self.by_degree.hit_rate(score, _K)}


@torch.no_grad()
def _scores(
    state: ModelState[EntityModel], config: PretrainConfig, stage: str, users: np.ndarray, items: np.ndarray
) -> np.ndarray:
    """Of users (n,) and items (n, m), shape (n, m); on several processes all of them ask for the same."""
    state.model.eval()
    device = state.process.device
    distinct, places = np.unique(items, return_inverse=True)
    asked = [("user_id", torch.from_numpy(users).to(device)), ("item_id", torch.from_numpy(distinct).to(device))]
    heads, tails = state.model.vectors(asked)
    if stage != CONTRASTIVE:
        assert config.graph is not None
        number = engagement(config.relations)[0]
        found = scores(state.model.net, config.graph.model, number, heads, tails)
    elif config.contrastive is not None and config.contrastive.loss == "bce":
        found = heads @ tails.T
    else:
        found = functional.normalize(heads, dim=1) @ functional.normalize(tails, dim=1).T
    rows = np.arange(len(users))[:, None]
    return found.cpu().numpy()[rows, places.reshape(items.shape)]
