"""Tables of entities, and what is trained beside them."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from components.engagement.entity_rows import look_up
from components.features.edges import Relation
from components.features.feature_kinds import SequenceFeature
from components.features.feature_list import FeatureConfig
from components.pretrain.config import PretrainConfig
from components.tables.embeddings import Embeddings
from components.tables.shard_layout import HeldRows
from components.tables.table_model import TableModel


def entity_features(features: FeatureConfig, entities: Sequence[str]) -> FeatureConfig:
    """A feature list with the tables of some entities only, each as it is in `features`."""
    chosen = tuple(feature for feature in features.categorical if feature.name in entities)
    sequence = SequenceFeature(length=1, entities=(chosen[0].name,))
    return FeatureConfig(categorical=chosen, sequence=sequence, timezone=features.timezone)


class EntityModel(TableModel):
    """The tables, looked up by entity and id, and the net: temperature and relations."""

    net: EntityNet

    def __init__(self, features: FeatureConfig, config: PretrainConfig, held: HeldRows | None = None) -> None:
        """Make both; `features` is what `entity_features` gives."""
        super().__init__()
        self.embeddings = Embeddings(features, config.embedding_dim, config.embedding_init, held)
        self.net = EntityNet(config)
        self._codes = features.binary_codes

    def vectors(self, asked: Sequence[tuple[str, Tensor]]) -> list[Tensor]:
        """Vectors of ids, each shape (n_i, dim), in one look-up.

        Args:
            asked: Entities, each with ids below its `num_ids`, int64, shape (n_i,).
        """
        return look_up(self.embeddings, self._codes, asked)


class EntityNet(nn.Module):
    """What is trained densely: the contrastive temperature, and each relation's parameters in both directions."""

    def __init__(self, config: PretrainConfig) -> None:
        """Draw relations as N(0, 1/dim), after the tables."""
        super().__init__()
        dim, relations = config.embedding_dim, 2 * len(config.relations)
        start = config.contrastive.temperature if config.contrastive else 1.0
        self.log_temperature = nn.Parameter(torch.tensor(math.log(start)))
        self.bias = nn.Parameter(torch.zeros(()))
        self.relations = nn.Parameter(torch.randn(relations, dim) / math.sqrt(dim))
        self.projections: nn.Parameter | None = None
        if config.graph is not None and config.graph.model == "transr":
            # From the identity, so that training begins as TransE does.
            self.projections = nn.Parameter(torch.eye(dim).repeat(relations, 1, 1))

    def temperature(self, limits: tuple[float, float]) -> Tensor:
        """The temperature within its limits, shape ()."""
        return self.log_temperature.exp().clamp(*limits)


def direction(relations: tuple[Relation, ...], number: int, is_reverse: bool) -> int:
    """Which parameters a relation has when its source is asked for instead of its target."""
    return number + (len(relations) if is_reverse else 0)
