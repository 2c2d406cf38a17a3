"""Edges of many days in batches: shuffled, read a pool of row groups at a time."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date

import numpy as np
import pyarrow as pa

from components.common import parquet_files
from components.common.errors import InputError
from components.common.layout import Store
from components.common.manifests import read_manifest, verified_content
from components.features.edges import SCHEMA, EdgesManifest, Relation, edge_settings


@dataclass(frozen=True)
class Edges:
    """Some edges; arrays of shape (n,).

    Attributes:
        relation: Numbers, int64.
        source: Ids, int64.
        target: Ids, int64.
        count: How often, int64.
    """

    relation: np.ndarray
    source: np.ndarray
    target: np.ndarray
    count: np.ndarray

    @classmethod
    def of(cls, table: pa.Table) -> Edges:
        """Rows of `edges.SCHEMA`."""
        return cls(*(table[name].to_numpy().astype(np.int64) for name in SCHEMA.names))

    def take(self, rows: np.ndarray) -> Edges:
        """Some of them, by number or as bool."""
        return Edges(self.relation[rows], self.source[rows], self.target[rows], self.count[rows])

    def __len__(self) -> int:
        """How many."""
        return len(self.relation)


class EdgeStream:
    """The edges of some days; memory follows the pool, not the days."""

    def __init__(self, store: Store, days: list[date], relations: tuple[Relation, ...], pool_edges: int) -> None:
        """Open days whose edges are there.

        Raises:
            InputError: If a day has none, or those of other relations.
        """
        self.manifests, self._groups = [], []
        self._pool_edges = pool_edges
        for day in days:
            manifest = read_manifest(store.edges(day), EdgesManifest)
            if manifest.origin.settings != edge_settings(relations):
                raise InputError(
                    f"{store.edges(day)}: edges of other relations, {list(manifest.relations)}; collect them again by "
                    "`afterclick pretrain`"
                )
            self.manifests.append(manifest)
            for entry in manifest.files:
                uri, content = verified_content(store.edges(day), entry)
                sizes = parquet_files.parquet_row_groups(uri, content)
                self._groups += [parquet_files.RowGroup(uri, number, size) for number, size in enumerate(sizes) if size]

    def __len__(self) -> int:
        """Edges of all days."""
        return sum(group.num_rows for group in self._groups)

    def whole(self) -> Edges:
        """All edges at once, for a day's."""
        pools = [*self.pools()]
        if not pools:
            none = np.zeros(0, dtype=np.int64)
            return Edges(none, none, none, none)
        return Edges(*(np.concatenate([getattr(pool, name) for pool in pools]) for name in vars(pools[0])))

    def pools(self, seed: int | None = None) -> Iterator[Edges]:
        """All edges, a pool at a time: in the order of the days, or in one that the seed decides."""
        groups = self._groups
        if seed is not None:
            groups = [groups[place] for place in np.random.default_rng([seed, 0]).permutation(len(groups))]
        pool: list[parquet_files.RowGroup] = []
        for number, group in enumerate(groups):
            pool.append(group)
            if sum(one.num_rows for one in pool) >= self._pool_edges or number == len(groups) - 1:
                edges = Edges.of(parquet_files.read_pool(pool))
                if seed is not None:
                    edges = edges.take(np.random.default_rng([seed, 1, number]).permutation(len(edges)))
                yield edges
                pool = []
