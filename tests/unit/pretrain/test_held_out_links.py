"""Ranks of new edges, against what plain Python finds in the edges of every day."""

from __future__ import annotations

import numpy as np
import pytest

from components.engagement.edge_stream import EdgeStream
from components.engagement.vocabulary import count_ids
from components.pretrain.entity_model import entity_features
from components.pretrain.held_out_links import HeldOutLinks
from components.pretrain.run import pretrain
from tests.unit.pretrain.conftest import Logs, pretraining

GRAPH = {"contrastive": None, "graph": {"epochs": 8, "batch_size": 64, "num_negatives": 64, "model": "distmult"}}


def test_new_edges_are_asked_for_and_all_that_is_true_is_left_out(edges: Logs):
    config = pretraining(hits={"max_edges": 1000}, **GRAPH)
    features = entity_features(edges.deployment.config.features, config.edges.entities)
    days = edges.days[-config.edges.num_days :]
    window, last = (EdgeStream(edges.store, part, config.relations, 50) for part in (days[:-1], days[-1:]))
    known = count_ids(window.pools(), config.relations, [0, 1, 2], features, config.admit_after)
    (day,) = EdgeStream(edges.store, days[-1:], config.relations, 10**6).pools()
    links = HeldOutLinks.of_all(config, features, known, window, day)
    assert sum(len(link.asked.sources) for link in links) > 40
    before, after = (set(), set())
    for stream, found in ((window, before), (last, after)):
        for pool in stream.pools():
            for number, source, target in zip(pool.relation, pool.source, pool.target, strict=True):
                relation = config.relations[number]
                ends = (source % features.num_ids[relation.source], target % features.num_ids[relation.target])
                if ends[0] in known[relation.source].ids and ends[1] in known[relation.target].ids:
                    found.add((int(number), ends))
    for link in links:
        asked, true = ([*zip(part.sources, part.targets, strict=True)] for part in (link.asked, link.true))
        new = {ends for number, ends in after - before if number == link.asked.relation}
        assert sorted(asked) == sorted(new)
        sources, targets = ({*ends} for ends in zip(*asked, strict=True))
        assert {*true} == {
            (source, target)
            for number, (source, target) in before | after
            if number == link.asked.relation and (source in sources or target in targets)
        }


def test_training_ranks_new_edges_better_than_chance(own_edges: Logs):
    own = own_edges.deployment.config
    config = pretraining(**GRAPH)
    manifest = pretrain(own_edges.store.root, own.dataset, own.features, config, own_edges.days[-1])
    for point in manifest.epochs:
        shares = [figures["edges"] for figures in point["by_relation"].values()]
        ranks = [figures["mrr"] for figures in point["by_relation"].values()]
        assert point["mrr"] == pytest.approx(np.average(ranks, weights=shares))
    # Of k entities in random order the mean of 1 / rank is H(k) / k.
    items = manifest.admitted["item_id"]
    assert manifest.epochs[-1]["by_relation"]["clicked"]["mrr"] > 1.4 * np.sum(1 / np.arange(1, items + 1)) / items
