"""Link prediction by this project's own code on triples of any origin: training, and filtered ranks."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch

from components.engagement.vocabulary import Known
from components.features.edges import EdgesConfig, Relation
from components.features.feature_list import FeatureConfig
from components.pretrain.config import GraphConfig, PretrainConfig
from components.pretrain.entity_model import EntityModel, direction
from components.pretrain.link_prediction import link_loss, scores
from components.pretrain.ranks import filtered_ranks
from components.tables.config import OptimizerConfig
from components.tables.optimizer import ModelOptimizer

ENTITY = "item_id"


@dataclass(frozen=True)
class Triples:
    """A knowledge graph; int64, shape (n, 3) each: head, relation, tail."""

    train: np.ndarray
    valid: np.ndarray
    test: np.ndarray

    @property
    def num_entities(self) -> int:
        """Entities of all parts."""
        return int(self.all[:, [0, 2]].max()) + 1

    @property
    def num_relations(self) -> int:
        """Relations of all parts."""
        return int(self.all[:, 1].max()) + 1

    @property
    def all(self) -> np.ndarray:
        """Everything that is true."""
        return np.concatenate([self.train, self.valid, self.test])


class LinkTrainer:
    """The tables, relations and optimizer of the graph stage, on one table of entities."""

    def __init__(
        self,
        triples: Triples,
        graph: GraphConfig,
        dim: int,
        optimizer: OptimizerConfig,
        seed: int,
        num_entities: int | None = None,
    ) -> None:
        """Draw them; `num_entities` counts those that no triple has."""
        num_entities = num_entities or triples.num_entities
        relations = tuple(Relation(name=f"r{number}", action_type="click") for number in range(triples.num_relations))
        self._config = PretrainConfig(
            embedding_dim=dim,
            edges=EdgesConfig(relations=relations),
            contrastive=None,
            graph=graph,
            optimizer=optimizer,
            seed=seed,
        )
        features = FeatureConfig.model_validate(
            {
                "categorical": [{"name": ENTITY, "num_rows": num_entities}],
                "sequence": {"length": 1, "entities": [ENTITY]},
            }
        )
        torch.manual_seed(seed)
        self._triples, self._graph, self._seed = triples, graph, seed
        self.model = EntityModel(features, self._config)
        self._optimizer = ModelOptimizer(self.model, optimizer)
        counts = np.bincount(triples.train[:, [0, 2]].reshape(-1), minlength=num_entities)
        self._known = Known(np.arange(num_entities), counts, num_entities)
        order = np.argsort(triples.train[:, 1], kind="stable")
        sizes = np.bincount(triples.train[:, 1], minlength=triples.num_relations)
        self._by_relation = np.split(triples.train[order], np.cumsum(sizes)[:-1])

    def train_epoch(self, epoch: int) -> float:
        """All triples once, a batch of one relation at a time; gives the seconds that it took."""
        generator = np.random.default_rng([self._seed, epoch])
        batches = []
        for number, own in enumerate(self._by_relation):
            mixed = own[generator.permutation(len(own))]
            size = self._graph.batch_size
            batches += [(number, mixed[start : start + size]) for start in range(0, len(mixed), size)]
        self.model.train()
        started = time.perf_counter()
        for place in generator.permutation(len(batches)):
            self._step(*batches[place], generator)
        return time.perf_counter() - started

    def _step(self, number: int, batch: np.ndarray, generator: np.random.Generator) -> None:
        self._optimizer.zero_grad()
        often = round(self._graph.num_negatives * self._graph.negatives_by_degree)
        rest = self._graph.num_negatives - often
        drawn = [
            np.concatenate([self._known.draw(generator, often, by_degree=True), self._known.draw(generator, rest)])
            for _ in range(2)
        ]
        ids = [torch.from_numpy(np.ascontiguousarray(part)) for part in (batch[:, 0], batch[:, 2], *drawn)]
        heads, tails, other_heads, other_tails = self.model.vectors([(ENTITY, part) for part in ids])
        losses = [
            link_loss(self.model.net, self._graph, direction(self._config.relations, number, is_reverse), *sides)
            for is_reverse, sides in (
                (False, (heads, tails, other_tails, ids[1][:, None] == ids[3])),
                (True, (tails, heads, other_heads, ids[0][:, None] == ids[2])),
            )
        ]
        ((losses[0] + losses[1]) / 2).backward()
        self._optimizer.step()

    @torch.no_grad()
    def ranks(self, asked: np.ndarray, known: np.ndarray) -> np.ndarray:
        """Filtered ranks of heads and tails of some triples, float64, shape (2 n,)."""
        self.model.eval()
        (entities,) = self.model.vectors([(ENTITY, torch.arange(self._triples.num_entities))])
        found = []
        for number in range(self._triples.num_relations):
            own, true = asked[asked[:, 1] == number], known[known[:, 1] == number]
            for is_reverse, (head, tail) in ((False, (0, 2)), (True, (2, 0))):
                place = direction(self._config.relations, number, is_reverse)
                score, every = self._score(place, entities), np.arange(len(entities))
                found.append(filtered_ranks(score, own[:, head], own[:, tail], (true[:, head], true[:, tail]), every))
        return np.concatenate(found)

    def _score(self, place: int, entities: torch.Tensor) -> Callable[[np.ndarray, np.ndarray], torch.Tensor]:
        return lambda heads, tails: scores(
            self.model.net, self._graph.model, place, *(entities[torch.from_numpy(ids)] for ids in (heads, tails))
        )


def mean_reciprocal_rank(ranks: np.ndarray) -> float:
    """MRR."""
    return float((1 / ranks).mean())
