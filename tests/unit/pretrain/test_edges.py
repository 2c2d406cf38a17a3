"""Edges: from which rows of which day, and no others."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest

from components.collect_edges.run import collect_edges
from components.common import parquet_files, storage
from components.common.days import MICROSECONDS_PER_DAY, microseconds
from components.common.errors import InputError
from components.common.manifests import read_manifest
from components.engagement.edge_stream import EdgeStream
from components.engagement.vocabulary import count_ids
from components.features.edges import EdgesManifest, edges_of, merge_edges
from components.features.events import ACTIONS, IMPRESSIONS, TIMESTAMP
from components.features.hashing import feature_ids, hash_identifiers
from components.features.log_events import Events
from components.features.log_manifests import CleanLogManifest
from components.pretrain.run import pretrain
from tests.unit.pretrain.conftest import pretraining


def actions(users: list, items: list, types: list[str]) -> Events:
    times = pa.array(range(len(users)), pa.int64()).cast(TIMESTAMP)
    return Events.of(pa.table({"timestamp": times, "user_id": users, "item_id": items, "action_type": types}))


def ids(*names: str) -> list[int]:
    return feature_ids(hash_identifiers(pa.array(names))).tolist()


def test_edges_are_counted_by_relation_and_rows_without_id_are_told():
    events = actions(["u", "u", "v", "v"], ["a", "a", None, "b"], ["click", "click", "click", "checkout"])
    found, without_id = edges_of(ACTIONS, events, pretraining().relations)
    (user, other), (item, second) = ids("u", "v"), ids("a", "b")
    rows = {tuple(row[name] for name in ("relation", "source", "target", "count")) for row in found.to_pylist()}
    assert rows == {(0, user, item, 2), (1, other, second, 1)}
    assert without_id.tolist() == [1, 0, 0]


def test_impressions_are_edges_of_relations_without_action_type():
    columns = {"timestamp": pa.array([1, 2], pa.int64()).cast(TIMESTAMP), "user_id": ["u", "v"]}
    events = Events.of(pa.table({**columns, "item_id": ["a", "a"], "campaign_id": ["c", None]}))
    found, without_id = edges_of(IMPRESSIONS, events, pretraining().relations)
    assert found.to_pylist() == [{"relation": 2, "source": ids("a")[0], "target": ids("c")[0], "count": 1}]
    assert without_id.tolist() == [0, 0, 1]


def test_merging_gives_the_same_rows_in_any_order():
    generator = np.random.default_rng(0)
    parts = []
    for _ in range(4):
        users, items = (generator.integers(0, 20, 50).tolist() for _ in range(2))
        parts.append(edges_of(ACTIONS, actions(users, items, ["click"] * 50), pretraining().relations)[0])
    once, twice = merge_edges(parts), merge_edges([merge_edges(parts[2:]), merge_edges(parts[:2][::-1])])
    assert once.equals(twice) and sum(once["count"].to_pylist()) == 200


def test_a_late_conversion_is_no_edge_of_a_window_before_it(own_edges):
    """Its impression is in the window, its label too; the edge is of the day on which it happened."""
    deployment, store = own_edges.deployment, own_edges.store
    last = own_edges.days[-1]
    later = deployment.scored_day
    uri = store.clean_logs(ACTIONS, later)
    manifest = read_manifest(uri, CleanLogManifest)
    rows = parquet_files.read_parquet(storage.join_uri(uri, manifest.files[0].name))
    late = (rows["action_type"].to_numpy(zero_copy_only=False) == "checkout") & (
        rows["timestamp"].cast(pa.int64()).to_numpy() > microseconds(last) + MICROSECONDS_PER_DAY
    )
    assert late.any()
    planted = {
        (user, item)
        for user, item in zip(
            feature_ids(hash_identifiers(rows["user_id"].filter(pa.array(late)))).tolist(),
            feature_ids(hash_identifiers(rows["item_id"].filter(pa.array(late)))).tolist(),
            strict=True,
        )
    }

    def bought(days: list) -> set:
        pools = [*EdgeStream(store, days, pretraining().relations, 10**6).pools()]
        return {
            (source, target)
            for pool in pools
            for number, source, target in zip(pool.relation, pool.source, pool.target, strict=True)
            if number == 1
        }

    before = bought(own_edges.days)
    assert not planted <= before
    collect_edges(store.root, deployment.config.dataset, pretraining().edges, [later])
    assert planted <= bought([later]) and bought(own_edges.days) == before


def test_one_more_day_reads_one_more_day(own_edges):
    deployment, store = own_edges.deployment, own_edges.store
    days = [*own_edges.days, deployment.scored_day]
    assert collect_edges(store.root, deployment.config.dataset, pretraining().edges, days) == [deployment.scored_day]
    assert collect_edges(store.root, deployment.config.dataset, pretraining().edges, days) == []
    manifest = read_manifest(store.edges(days[0]), EdgesManifest)
    assert manifest.relations == ("clicked", "bought", "of_campaign")
    assert all(events >= edges > 0 for edges, events in zip(manifest.edges, manifest.events, strict=True))


def test_days_without_logs_are_named(own_edges):
    deployment, store = own_edges.deployment, own_edges.store
    storage.remove(store.clean_logs(IMPRESSIONS, own_edges.days[2]))
    with pytest.raises(InputError, match=str(own_edges.days[2])):
        collect_edges(store.root, deployment.config.dataset, pretraining().edges, own_edges.days)


def test_stream_has_every_edge_once_in_an_order_of_the_seed(edges):
    def keys(pools):
        return [key for pool in pools for key in zip(pool.relation, pool.source, pool.target, strict=True)]

    stream = EdgeStream(edges.store, edges.days, pretraining().relations, 700)
    plain, shuffled = keys(stream.pools()), keys(stream.pools(1))
    assert len(plain) == len(stream) and sorted(plain) == sorted(shuffled) and plain != shuffled
    assert shuffled == keys(stream.pools(1)) != keys(stream.pools(2))
    assert len([*stream.pools()]) > 2


def test_ids_are_admitted_by_their_edges(edges):
    features = edges.deployment.config.features
    pools = [*EdgeStream(edges.store, edges.days, pretraining().relations, 10**6).pools()]
    known = count_ids(pools, pretraining().relations, [0], features, 3)
    clicked = pools[0].take(pools[0].relation == 0)
    found, where = np.unique(clicked.source % features.num_ids["user_id"], return_inverse=True)
    degrees = np.bincount(where, clicked.count).astype(int)
    assert known["user_id"].num_seen == len(found)
    assert known["user_id"].ids.tolist() == found[degrees >= 3].tolist()
    assert known["user_id"].degrees.tolist() == degrees[degrees >= 3].tolist()
    assert known["user_id"].has(np.array([found[degrees >= 3][0], found[degrees < 3][0]])).tolist() == [True, False]


def test_window_of_one_day_is_refused(edges):
    config = edges.deployment.config
    with pytest.raises(InputError, match="has 1 days"):
        pretrain(edges.store.root, config.dataset, config.features, pretraining(), config.dataset.first_day)


def test_edges_of_other_relations_are_refused(edges):
    config = edges.deployment.config
    other = pretraining(relations=[{"name": "bought", "action_type": "checkout"}])
    with pytest.raises(InputError, match="edges of other relations"):
        pretrain(edges.store.root, config.dataset, config.features, other, edges.days[-1])
