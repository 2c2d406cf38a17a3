"""The contrastive loss of engagement beside the ranker's own: single-stage training."""

from __future__ import annotations

from datetime import date

import numpy as np
import torch
from torch import Tensor

from components.common.digests import digest_json
from components.common.errors import InputError
from components.common.layout import Store
from components.common.manifests import read_manifest
from components.engagement.contrastive import contrastive_loss
from components.engagement.edge_batches import engagement
from components.engagement.edge_stream import EdgeStream
from components.engagement.entity_rows import look_up
from components.features.edges import EdgesManifest, Relation
from components.features.feature_list import FeatureConfig
from components.ranker.config import EngagementLossConfig
from components.tables.embeddings import Embeddings
from components.tables.processes import Process
from components.train.config import TrainConfig

_MOST_EDGES = 1_000_000


class EngagementPairs:
    """Pairs of users and items of some days, of which every step takes some.

    Attributes:
        digest: Of the days' edges.
    """

    def __init__(
        self,
        store: Store,
        days: list[date],
        features: FeatureConfig,
        config: EngagementLossConfig,
        seed: int,
        process: Process,
    ) -> None:
        """Read up to a million edges of the days; more are a random part of their row groups.

        Raises:
            InputError: If a day has no edges, or none is of a user with an item.
        """
        first = read_manifest(store.edges(days[0]), EdgesManifest)
        relations = tuple(Relation.model_validate(values) for values in first.origin.settings["relations"])
        stream = EdgeStream(store, days, relations, _MOST_EDGES)
        self.digest = digest_json([manifest.content_digest for manifest in stream.manifests])
        self._features, self._config, self._seed, self._process = features, config, seed, process
        edges = next(iter(stream.pools(seed)), None)
        chosen = np.zeros(0, dtype=bool) if edges is None else np.isin(edges.relation, engagement(relations))
        if edges is None or not chosen.any():
            raise InputError(
                f"{store.edges(days[0])} and the days after it: no edge leads from user_id to item_id; single_stage "
                "needs engagement on the days that are trained on"
            )
        self._users = edges.source[chosen] % features.num_ids["user_id"]
        self._items = edges.target[chosen] % features.num_ids["item_id"]
        self._distinct = np.unique(self._items)

    def loss(self, embeddings: Embeddings, step: int) -> Tensor:
        """The weighted loss of a step's own pairs, shape (); over several processes, of each one's own pairs."""
        config, generator = self._config, np.random.default_rng([self._seed, step, self._process.share.rank])
        rows = generator.integers(0, len(self._users), config.batch_size)
        randoms = self._distinct[generator.integers(0, len(self._distinct), config.num_negatives)]
        device = embeddings.weight.device
        ids = [torch.from_numpy(part).to(device) for part in (self._users[rows], self._items[rows], randoms)]
        asked = [("user_id", ids[0]), ("item_id", ids[1]), ("item_id", ids[2])]
        users, items, others = look_up(embeddings, self._features.binary_codes, asked)
        temperature, equal = torch.tensor(config.temperature, device=device), torch.ones(len(rows), device=device)
        pairs, of_ids = (users, items, others), (ids[0], ids[1], ids[2])
        return config.weight * contrastive_loss(temperature, pairs, of_ids, (equal, 1 / len(self._distinct)))


def open_pairs(
    store: Store, features: FeatureConfig, config: TrainConfig, days: list[date], process: Process
) -> EngagementPairs | None:
    """The engagement that a recipe trains on beside the examples of some days, if it does."""
    if config.pretrained is None or config.pretrained.mode != "single_stage":
        return None
    return EngagementPairs(store, days, features, config.pretrained.engagement, config.seed, process)
