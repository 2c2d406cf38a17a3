"""Examples from Parquet row groups to batches: shuffled over all days, in memory that does not grow with them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from datetime import date
from itertools import accumulate

import numpy as np
import pyarrow as pa
import torch

from components.common import parquet_files
from components.common.ahead import ahead
from components.common.layout import Store
from components.common.manifests import verified_content
from components.common.parquet_files import RowGroup
from components.features.examples import ExamplesManifest, read_examples_manifest
from components.features.feature_list import FeatureConfig
from components.features.learned_rows import NO_INDEXES, RowIndex
from components.features.vectors import KnownVectors
from components.ranker.batch import Batch
from components.ranker.dataset import ExampleSet, concatenate, tensors_of
from components.tables.processes import Share

_BATCHES_AHEAD = 8


class ExampleStream:
    """Examples of some days, read again in every epoch.

    Row groups are put in random order and read in pools of about `pool_rows` rows, each pool in random order; so a
    batch mixes the days of a whole pool. The join writes rows ordered by a hash: a row group is a random part of its
    day. When all rows fit in one pool, the order is a plain random permutation.

    Attributes:
        vectors: Where pretrained ones are looked up.
    """

    def __init__(
        self,
        groups: list[RowGroup],
        features: FeatureConfig,
        pool_rows: int,
        share: Share,
        vectors: KnownVectors | None = None,
    ) -> None:
        """Read these row groups; most users call `open_stream`."""
        self._groups, self._features, self._pool_rows, self._share = groups, features, pool_rows, share
        self.vectors = vectors
        self._num_rows = sum(group.num_rows for group in groups)
        self._indexes = NO_INDEXES

    def use(self, indexes: Mapping[str, RowIndex]) -> None:
        """Take the rows of exact ids from these, by table."""
        self._indexes = indexes

    def __len__(self) -> int:
        """Number of rows, of all processes together."""
        return self._num_rows

    def num_batches(self, batch_size: int) -> int:
        """Batches of an epoch."""
        return -(-self._num_rows // batch_size)

    def parts(self) -> Iterator[ExampleSet]:
        """All rows in the order of the files, a pool at a time."""
        for pool in self._pools(self._groups):
            yield self._tensors(parquet_files.read_pool(pool))

    def _tensors(self, table: pa.Table) -> ExampleSet:
        return tensors_of(table, self._features, False, self._indexes, self.vectors)

    def shuffled(self, batch_size: int, seed: int, first: int = 0) -> Iterator[Batch]:
        """This process's part of every batch, from the batch with number `first`; the seed decides their rows.

        Batches are made ahead by a thread, and the next pool is read meanwhile.
        """
        return ahead(self._shuffled(batch_size, seed, first), _BATCHES_AHEAD)

    def _shuffled(self, batch_size: int, seed: int, first: int) -> Iterator[Batch]:
        pools = self._shuffled_pools(seed)
        starts = [0, *accumulate(sum(group.num_rows for group in pool) for pool in pools)]
        wanted = [number for number in range(len(pools)) if starts[number + 1] > first * batch_size]
        with ThreadPoolExecutor(1) as reader:

            def read_ahead(number: int) -> Future[ExampleSet]:
                positions = self._own_positions(starts[number], starts[number + 1], batch_size, first)
                return reader.submit(self._read_shuffled, pools[number], seed + number, positions - starts[number])

            coming = read_ahead(wanted[0]) if wanted else None
            open_parts: list[ExampleSet] = []
            for number in wanted:
                assert coming is not None
                rows = coming.result()
                coming = read_ahead(number + 1) if number + 1 < len(pools) else None
                taken = 0
                for batch in range(max(starts[number] // batch_size, first), self.num_batches(batch_size)):
                    low, high, counts = self._own_range(batch, batch_size)
                    inside = min(high, starts[number + 1]) - max(low, starts[number])
                    if inside > 0:
                        open_parts.append(rows.slice(taken, taken + inside))
                        taken += inside
                    if (batch + 1) * batch_size > starts[number + 1] and number + 1 < len(pools):
                        break
                    own = concatenate(open_parts).batch(slice(None))
                    yield own if counts else own.uncounted()
                    open_parts = []

    def _shuffled_pools(self, seed: int) -> list[list[RowGroup]]:
        pools = [*self._pools(self._groups)]
        if len(pools) > 1:
            order = torch.randperm(len(self._groups), generator=torch.Generator().manual_seed(seed)).tolist()
            pools = [*self._pools([self._groups[number] for number in order])]
        return pools

    def _pools(self, groups: list[RowGroup]) -> Iterator[list[RowGroup]]:
        pool: list[RowGroup] = []
        num_rows = 0
        for group in groups:
            pool.append(group)
            num_rows += group.num_rows
            if num_rows >= self._pool_rows:
                yield pool
                pool, num_rows = [], 0
        if pool:
            yield pool

    def _own_range(self, batch: int, batch_size: int) -> tuple[int, int, bool]:
        return self._share.of(batch * batch_size, min((batch + 1) * batch_size, self._num_rows))

    def _own_positions(self, start: int, stop: int, batch_size: int, first: int) -> np.ndarray:
        """Positions within `start`..`stop` of the shuffled rows that this process takes, from batch `first` on."""
        batches = range(max(start // batch_size, first), -(-stop // batch_size))
        ranges = [self._own_range(batch, batch_size) for batch in batches]
        inside = [np.arange(max(low, start), max(min(high, stop), max(low, start))) for low, high, _ in ranges]
        return np.concatenate([np.zeros(0, dtype=np.int64), *inside])

    def _read_shuffled(self, pool: list[RowGroup], seed: int, positions: np.ndarray) -> ExampleSet:
        table = parquet_files.read_pool(pool)
        order = torch.randperm(table.num_rows, generator=torch.Generator().manual_seed(seed)).numpy()
        return self._tensors(table.take(pa.array(order[positions])))


def open_stream(
    store: Store, split: str, days: list[date], features: FeatureConfig, pool_rows: int, share: Share | None = None
) -> tuple[ExampleStream, list[ExamplesManifest]]:
    """The examples of some days, and each day's manifest.

    Raises:
        InputError: If a day has no such examples, or none of a pretrained vector's deliveries is older than the days.
    """
    groups, manifests = [], []
    for day in days:
        manifest = read_examples_manifest(store, split, day)
        manifests.append(manifest)
        for entry in manifest.files:
            uri, content = verified_content(store.examples(split, day), entry)
            sizes = parquet_files.parquet_row_groups(uri, content)
            groups += [RowGroup(uri, number, size) for number, size in enumerate(sizes) if size]
    vectors = KnownVectors.before(store, features, days[0], days[-1]) if features.vectors and days else None
    return ExampleStream(groups, features, pool_rows, share or Share(), vectors), manifests
