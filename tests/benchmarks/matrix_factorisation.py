"""Matrix factorisation beside pretrained tables: implicit ALS on the same pairs, judged on the same held-out ones."""

from __future__ import annotations

from datetime import date

import numpy as np
import scipy.sparse

from components.common.layout import Store
from components.engagement.edge_batches import Batches, engagement
from components.engagement.edge_stream import EdgeStream
from components.engagement.vocabulary import count_ids
from components.features.edges import Relation
from components.pretrain import pretrainer
from components.pretrain.config import PretrainConfig
from components.pretrain.entity_model import entity_features
from components.pretrain.judge import HeldOut
from components.tables.processes import Share
from pipelines.config import RunConfig


def als_hits(store: Store, config: RunConfig, section: PretrainConfig, through: date) -> list[float]:
    """Hit@3 of alternating least squares (Hu et al. 2008), among uniform items and among those by degree.

    Its factors are as many as the tables' numbers, everything else is the library's default.
    """
    from implicit.als import AlternatingLeastSquares

    relations: tuple[Relation, ...] = section.relations
    features = entity_features(config.features, section.edges.entities)
    days, numbers = section.edges.window(config.dataset, through), engagement(relations)
    window, last = (EdgeStream(store, part, relations, section.pool_edges) for part in (days[:-1], days[-1:]))
    known = count_ids(window.pools(), relations, numbers, features, section.admit_after)
    held_out = HeldOut.of(section, features, {pretrainer.CONTRASTIVE: known}, window, last.whole())
    users, items = known["user_id"], known["item_id"]
    cutter = Batches(relations, features, known, numbers, Share())
    counts = scipy.sparse.csr_matrix((len(users.ids), len(items.ids)), dtype=np.float32)
    for pool in window.pools():
        for number in numbers:
            own = cutter.admitted(pool, number)
            places = (users.places(own.sources), items.places(own.targets))
            counts += scipy.sparse.csr_matrix((np.ones(len(own.sources), np.float32), places), counts.shape)
    model = AlternatingLeastSquares(factors=section.embedding_dim, random_state=section.seed, num_threads=1)
    model.fit(counts, show_progress=False)

    def score(asked: np.ndarray, candidates: np.ndarray) -> np.ndarray:
        vectors = model.item_factors[items.places(candidates.reshape(-1))].reshape(*candidates.shape, -1)
        return np.einsum("nd,nmd->nm", model.user_factors[users.places(asked)], vectors)

    return [candidates.hit_rate(score) for candidates in (held_out.uniform, held_out.by_degree)]
