"""A large graph to be timed on."""

from __future__ import annotations

import numpy as np


def drawn(num_edges: int, num_entities: int, num_relations: int, seed: int = 0) -> np.ndarray:
    """Triples of a graph whose entities are met by Zipf's law; int64, shape (n, 3): head, relation, tail."""
    generator = np.random.default_rng(seed)
    ends = (generator.zipf(1.3, (num_edges, 2)) * 7919) % num_entities
    return np.stack([ends[:, 0], generator.integers(0, num_relations, num_edges), ends[:, 1]], axis=1)
