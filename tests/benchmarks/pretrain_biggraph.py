"""PyTorch-BigGraph on a large graph: prints the seconds of an epoch, as JSON.

DistMult in its terms: the operator `diagonal`, the comparator `dot`. Half of the negatives are of the batch, half
uniform. Its row-wise Adagrad keeps one number a row where Adam keeps two for each number.
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
import types
from pathlib import Path
from statistics import median

import torch

from tests.benchmarks.random_graph import drawn

EPOCHS = 3
# It asks pkg_resources, which setuptools no longer has, for its own version; its worker imports this module too.
sys.modules.setdefault("pkg_resources", types.SimpleNamespace(resource_string=lambda *_: b"1.0.0"))  # type: ignore[arg-type]


def write_graph(folder: str, num_edges: int, num_entities: int, num_relations: int) -> None:
    """Write the graph in the files that it reads."""
    from torchbiggraph.edgelist import EdgeList
    from torchbiggraph.entitylist import EntityList
    from torchbiggraph.graph_storages import EDGE_STORAGES, ENTITY_STORAGES, RELATION_TYPE_STORAGES

    triples = torch.from_numpy(drawn(num_edges, num_entities, num_relations))
    for registry in (EDGE_STORAGES, ENTITY_STORAGES, RELATION_TYPE_STORAGES):
        registry.make_instance(folder).prepare()
    ENTITY_STORAGES.make_instance(folder).save_count("node", 0, num_entities)
    RELATION_TYPE_STORAGES.make_instance(folder).save_count(num_relations)
    heads, tails = (EntityList.from_tensor(triples[:, column].clone()) for column in (0, 2))
    EDGE_STORAGES.make_instance(folder).save_edges(0, 0, EdgeList(heads, tails, triples[:, 1].clone()))


def main(num_edges: int, num_entities: int, num_relations: int, dim: int, batch_size: int, negatives: int) -> None:
    """Train, and print the median of all epochs but the first, which holds the start of its worker."""
    from torchbiggraph import train as biggraph
    from torchbiggraph.config import parse_config

    # It waits for its worker once an epoch: that is the training, without reading edges or writing checkpoints.
    seconds, wait = [], biggraph.get_async_result

    def timed_wait(*arguments: object) -> object:
        started = time.perf_counter()
        result = wait(*arguments)
        seconds.append(time.perf_counter() - started)
        return result

    biggraph.get_async_result = timed_wait
    with tempfile.TemporaryDirectory() as root:
        folder = str(Path(root, "graph"))
        write_graph(folder, num_edges, num_entities, num_relations)
        relation = {"lhs": "node", "rhs": "node", "operator": "diagonal"}
        config = {
            "entities": {"node": {"num_partitions": 1}},
            "relations": [{**relation, "name": f"relation{number}"} for number in range(num_relations)],
            "dimension": dim,
            "comparator": "dot",
            "global_emb": False,
            "loss_fn": "logistic",
            "lr": 0.1,
            "batch_size": batch_size,
            "num_batch_negs": negatives // 2,
            "num_uniform_negs": negatives - negatives // 2,
            "entity_path": folder,
            "edge_paths": [folder],
            "checkpoint_path": str(Path(root, "model")),
            "num_epochs": EPOCHS,
            "workers": 1,
            "eval_fraction": 0.0,
        }
        for _ in biggraph.train_and_report_stats(parse_config(config)):
            pass
    print(json.dumps(median(seconds[1:])))


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
