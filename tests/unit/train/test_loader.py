"""Batches from Parquet row groups: every row once, in an order that the seed decides, from any place on."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from components.common import parquet_files, storage
from components.common.layout import Store
from components.common.manifests import describe_file, finish_directory, read_manifest
from components.features.examples import TRAINING, ExamplesManifest, read_examples
from components.ranker.dataset import concatenate, tensors_of
from components.tables.processes import Share
from components.train.loader import open_stream

BATCH = 64


@pytest.fixture(scope="module")
def store(joined, tmp_path_factory):
    """The batch days' examples in small row groups."""
    root = str(tmp_path_factory.mktemp("loader"))
    for day in joined.batch_days:
        source, target = joined.store.examples(TRAINING, day), Store(root).examples(TRAINING, day)
        manifest = read_manifest(source, ExamplesManifest)
        names = [entry.name for entry in manifest.files]
        for name in names:
            table = parquet_files.read_parquet(storage.join_uri(source, name))
            parquet_files.write_parquet(storage.join_uri(target, name), table, rows_per_group=100)
        finish_directory(target, manifest, [describe_file(target, name) for name in names])
    return Store(root)


def stream_of(store, joined, pool_rows, share=None):
    return open_stream(store, TRAINING, joined.batch_days, joined.config.features, pool_rows, share)[0]


def fingerprints(batches):
    """What tells rows apart: their dense features, sorted when compared as sets."""
    return np.concatenate([batch.dense.numpy() for batch in batches])


def rows_as_bytes(values):
    return sorted(row.tobytes() for row in values)


@pytest.mark.parametrize("pool_rows", [90, 500, 10**6])
def test_every_row_comes_once(store, joined, pool_rows):
    stream = stream_of(store, joined, pool_rows)
    batches = list(stream.shuffled(BATCH, seed=3))
    everything = concatenate([*stream.parts()])
    assert len(batches) == stream.num_batches(BATCH) and len(everything) == len(stream)
    assert all(len(batch.dense) == BATCH for batch in batches[:-1])
    assert rows_as_bytes(fingerprints(batches)) == rows_as_bytes(everything.dense.numpy())
    assert not np.array_equal(fingerprints(batches), everything.dense.numpy())


@pytest.mark.parametrize("pool_rows", [90, 500])
def test_batches_mix_days(store, joined, pool_rows):
    """With pools of 5 of the row groups of 100, most batches come from several files."""
    stream = stream_of(store, joined, pool_rows)
    days = {}
    for number, day in enumerate(joined.batch_days):
        table, _ = read_examples(store, TRAINING, day)
        for row in tensors_of(table, joined.config.features, unsampled=False).dense.numpy():
            days[row.tobytes()] = number
    mixed = [len({days[row.tobytes()] for row in batch.dense.numpy()}) for batch in stream.shuffled(BATCH, seed=3)]
    assert np.mean(mixed) > (1.5 if pool_rows == 90 else 2.5)


@pytest.mark.parametrize("pool_rows", [90, 500, 10**6])
@pytest.mark.parametrize("first", [1, 7, 20])
def test_any_batch_can_be_the_first(store, joined, pool_rows, first):
    stream = stream_of(store, joined, pool_rows)
    whole, rest = list(stream.shuffled(BATCH, 5)), list(stream.shuffled(BATCH, 5, first))
    assert len(rest) == len(whole) - first
    for one, other in zip(whole[first:], rest, strict=True):
        assert torch.equal(one.dense, other.dense) and torch.equal(one.sparse.values(), other.sparse.values())
        assert torch.equal(one.labels, other.labels) and torch.equal(one.masks, other.masks)


@pytest.mark.parametrize("pool_rows", [90, 500, 10**6])
@pytest.mark.parametrize("first", [0, 7])
def test_shares_make_the_batches_of_one_process(store, joined, pool_rows, first):
    whole = list(stream_of(store, joined, pool_rows).shuffled(BATCH, 5, first))
    shares = [list(stream_of(store, joined, pool_rows, Share(rank, 3)).shuffled(BATCH, 5, first)) for rank in range(3)]
    for batch, *parts in zip(whole, *shares, strict=True):
        assert torch.equal(batch.dense, torch.cat([part.dense for part in parts]))


def test_processes_without_rows_of_the_last_batch_go_along(store, joined):
    total = len(stream_of(store, joined, 10**6))
    size = total - 1
    for rank in range(3):
        last = list(stream_of(store, joined, 10**6, Share(rank, 3)).shuffled(size, 5))[-1]
        assert len(last.dense) == 1 and bool(last.masks.any()) == (rank == 2)


def test_the_seed_decides_the_order(store, joined):
    stream = stream_of(store, joined, 500)
    orders = [fingerprints(stream.shuffled(BATCH, seed)) for seed in (1, 1, 2)]
    assert np.array_equal(orders[0], orders[1]) and not np.array_equal(orders[0], orders[2])


def test_one_pool_is_a_plain_permutation(store, joined):
    stream = stream_of(store, joined, 10**6)
    everything = concatenate([*stream.parts()])
    expected = [batch.dense for batch in everything.shuffled(BATCH, 4)]
    assert all(torch.equal(a, b.dense) for a, b in zip(expected, stream.shuffled(BATCH, 4), strict=True))
