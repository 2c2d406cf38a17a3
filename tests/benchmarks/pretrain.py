"""Pretraining's speed and ranks: the contrastive step beside memory, and link prediction beside PyKEEN.

PyKEEN trains in turns with this project's code on the data sets that its wheel ships, at equal dimension and epochs,
with settings that did well for it (NSSA, Adam, no constrainer or regularizer, rates chosen on validation ranks).
Ranks are filtered, of both ends, a tie half above, over all entities.
"""

from __future__ import annotations

import importlib.util
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

from components.engagement.contrastive import contrastive_loss
from components.features.edges import EdgesConfig, Relation
from components.features.feature_list import FeatureConfig
from components.pretrain.config import ContrastiveConfig, GraphConfig, PretrainConfig
from components.pretrain.entity_model import EntityModel
from components.tables.config import OptimizerConfig
from components.tables.optimizer import ModelOptimizer
from tests.benchmarks.peak_memory import peak_mb
from tests.benchmarks.pretrain_links import LinkTrainer, Triples, mean_reciprocal_rank
from tests.benchmarks.random_graph import drawn

SEEDS = (0, 1, 2)
DATASETS = ("kinships", "umls")
# PyKEEN's model, learning rate by data set, margin and negatives of an edge; what is equal; this project's settings,
# its margins chosen on validation ranks.
MODELS: dict[str, dict[str, Any]] = {
    "distmult": {
        "peer": ("DistMult", {"kinships": 1e-3, "umls": 3e-3}, 0.0, 16),
        "dim": 64,
        "epochs": 100,
        "graph": {"batch_size": 512, "num_negatives": 64},
        "margin": {"kinships": 0.0, "umls": 0.0},
        "learning_rate": 3e-3,
    },
    "transr": {
        "peer": ("TransR", {"kinships": 1e-2, "umls": 1e-2}, 9.0, 8),
        "dim": 32,
        "epochs": 40,
        "graph": {"batch_size": 32, "num_negatives": 64},
        "margin": {"kinships": 3.0, "umls": 2.0},
        "learning_rate": 2e-3,
    },
}
# Edges, entities, relations, dimension, batch, negatives of an edge.
LARGE = (300_000, 50_000, 10, 64, 4096, 64)
USERS, ITEMS, DIM, PAIRS, STEPS = 1_000_000, 1_000_000, 32, 4096, 30


def shipped(name: str) -> Triples:
    """Triples of one of PyKEEN's own data sets."""
    spec = importlib.util.find_spec("pykeen")
    assert spec is not None and spec.submodule_search_locations is not None
    folder = Path(spec.submodule_search_locations[0], "datasets", name)
    parts = [np.loadtxt(folder / f"{part}.txt", dtype=str, delimiter="\t") for part in ("train", "valid", "test")]
    together = np.concatenate(parts)
    entities, relations = np.unique(together[:, [0, 2]]), np.unique(together[:, 1])
    coded = [
        np.stack(
            [
                np.searchsorted(entities, p[:, 0]),
                np.searchsorted(relations, p[:, 1]),
                np.searchsorted(entities, p[:, 2]),
            ],
            1,
        )
        for p in parts
    ]
    return Triples(*coded)


def peer(name: str, model: str, seed: int) -> tuple[float, float]:
    """PyKEEN's filtered MRR on the test triples, and its seconds of training; in a process without TorchRec."""
    settings = MODELS[model]
    kind, rates, margin, negatives = settings["peer"]
    given = (name, kind, settings["dim"], settings["epochs"], rates[name], margin, negatives, seed)
    command = [sys.executable, "-W", "ignore", "-m", "tests.benchmarks.pretrain_peer", *map(str, given)]
    rank, seconds = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    return rank, seconds


def own(name: str, triples: Triples, model: str, seed: int) -> tuple[float, float]:
    """This project's, likewise."""
    settings = MODELS[model]
    chosen = {"model": model, "negatives_by_degree": 0.0, "margin": settings["margin"][name], **settings["graph"]}
    graph = GraphConfig.model_validate(chosen)
    optimizer = OptimizerConfig(learning_rate=settings["learning_rate"], tables="lazy_adam", eps=1e-8)
    trainer = LinkTrainer(triples, graph, settings["dim"], optimizer, seed)
    seconds = sum(trainer.train_epoch(epoch) for epoch in range(settings["epochs"]))
    return mean_reciprocal_rank(trainer.ranks(triples.test, triples.all)), seconds


def links() -> None:
    """Print ranks and edges a second beside PyKEEN's."""
    ratios, speeds = [], []
    for name in DATASETS:
        triples = shipped(name)
        for model, settings in MODELS.items():
            found = [(own(name, triples, model, seed), peer(name, model, seed)) for seed in SEEDS]
            (rank, seconds), (peer_rank, peer_seconds) = (
                tuple(statistics.mean(pair[side][value] for pair in found) for value in (0, 1)) for side in (0, 1)
            )
            edges = len(triples.train) * settings["epochs"]
            ratios.append(rank / peer_rank)
            speeds.append(peer_seconds / seconds)
            print(f"pretrain.{name}.{model}.mrr: {rank:.4f} (PyKEEN {peer_rank:.4f})")
            print(f"pretrain.{name}.{model}.edges_per_s: {edges / seconds:,.0f} (PyKEEN {edges / peer_seconds:,.0f})")
    print(f"pretrain.mrr_vs_pykeen: {min(ratios):.3f} to {max(ratios):.3f}")
    print(f"pretrain.small.edges_per_s_vs_pykeen: {min(speeds):.2f} to {max(speeds):.2f}")


def timed(module: str) -> float:
    """Seconds of an epoch of a peer on the large graph, in a process of its own."""
    command = [sys.executable, "-W", "ignore", "-m", f"tests.benchmarks.{module}", *map(str, LARGE)]
    return json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def large_graph() -> None:
    """Print edges a second on a large graph, in turns; as many negatives of an edge for both."""
    num_edges, num_entities, num_relations, dim, batch_size, negatives = LARGE
    none = np.zeros((0, 3), dtype=np.int64)
    train = drawn(num_edges, num_entities, num_relations)
    graph = GraphConfig(model="distmult", batch_size=batch_size, num_negatives=negatives)
    optimizer = OptimizerConfig(learning_rate=1e-3, tables="lazy_adam")
    trainer = LinkTrainer(Triples(train, none, none), graph, dim, optimizer, 0, num_entities)
    turns = [(trainer.train_epoch(epoch), timed("pretrain_peer"), timed("pretrain_biggraph")) for epoch in range(3)]
    own_seconds, pykeen, biggraph = (statistics.median(turn[side] for turn in turns) for side in range(3))
    shown = f"PyKEEN {num_edges / pykeen:,.0f}, PyTorch-BigGraph {num_edges / biggraph:,.0f}"
    print(f"pretrain.large.edges_per_s: {num_edges / own_seconds:,.0f} ({shown})")
    print(f"pretrain.edges_per_s_vs_pykeen: {pykeen / own_seconds:.1f}")
    print(f"pretrain.edges_per_s_vs_biggraph: {biggraph / own_seconds:.2f}")


def pairs() -> None:
    """Print the contrastive step's pairs a second, and its time beside that of the rows' way through memory."""
    config = PretrainConfig(
        embedding_dim=DIM,
        edges=EdgesConfig(relations=(Relation(name="bought", action_type="checkout"),)),
        contrastive=ContrastiveConfig(batch_size=PAIRS),
    )
    features = FeatureConfig.model_validate(
        {"categorical": [{"name": "user_id", "num_rows": USERS}, {"name": "item_id", "num_rows": ITEMS}]}
    )
    model = EntityModel(features, config)
    optimizer, stage = ModelOptimizer(model, config.optimizer), config.contrastive
    assert stage is not None
    model.train()
    generator, of_step, of_memory, of_tables = np.random.default_rng(0), [], [], []
    weight = model.embeddings.weight.detach()
    for state in optimizer.state_tensors().values():
        # Memory that was never written to is not there yet, and comes page by page.
        state.add_(0)
    for _ in range(STEPS):
        users = torch.from_numpy(generator.integers(0, USERS, PAIRS))
        items = torch.from_numpy((generator.zipf(1.2, PAIRS) % ITEMS).astype(np.int64))
        randoms = torch.from_numpy(generator.integers(0, ITEMS, stage.num_negatives))
        started = time.perf_counter()
        optimizer.zero_grad()
        ids = (users, items, randoms)
        vectors = model.vectors([("user_id", users), ("item_id", items), ("item_id", randoms)])
        looked_up = time.perf_counter()
        shares = (torch.full((PAIRS,), 1 / ITEMS), 1 / ITEMS)
        temperature = model.net.temperature(stage.temperature_range)
        loss = contrastive_loss(temperature, (vectors[0], vectors[1], vectors[2]), ids, shares)
        loss.backward()
        lost = time.perf_counter()
        optimizer.step()
        of_step.append(time.perf_counter() - started)
        of_tables.append(of_step[-1] - (lost - looked_up))
        rows = torch.cat([users, items + USERS, randoms + USERS])
        distinct = torch.unique(rows)
        started = time.perf_counter()
        weight.index_select(0, rows)
        for _ in range(3):
            weight.index_copy_(0, distinct, weight.index_select(0, distinct))
        of_memory.append(time.perf_counter() - started)
    step, tables, bound = (1e3 * statistics.median(times) for times in (of_step, of_tables, of_memory))
    print(f"pretrain.pairs_per_s: {1e3 * PAIRS / step:,.0f}")
    print(f"pretrain.step_milliseconds: {step:.1f}, of which {tables:.1f} for rows; memory alone {bound:.1f}")
    print(f"pretrain.ratio_to_bandwidth: {tables / bound:.2f}")
    print(f"pretrain.peak_mb: {peak_mb():.0f}")


def main() -> None:
    """Print the figures."""
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "2")))
    pairs()
    with tempfile.TemporaryDirectory() as folder:
        os.environ.setdefault("PYSTOW_HOME", folder)
        large_graph()
        links()


if __name__ == "__main__":
    main()
