"""One training of PyKEEN's: prints its filtered MRR on the test triples, and its seconds of training, as JSON.

Or, with six numbers, the seconds of an epoch on a large graph.

The garbage collector is frozen meanwhile: else a full collection after each of the short epochs would be most of the
time. It is a process of its own, since PyKEEN finds optimizers of TorchRec by one name twice, and does not import then.
"""

from __future__ import annotations

import gc
import json
import sys
import time
from typing import Any

import torch
from pykeen.datasets import get_dataset
from pykeen.evaluation import RankBasedEvaluator
from pykeen.losses import NSSALoss
from pykeen.models import model_resolver
from pykeen.training import SLCWATrainingLoop
from pykeen.triples import CoreTriplesFactory
from pykeen.utils import set_random_seed

from tests.benchmarks.random_graph import drawn


def time_epoch(
    num_edges: int, num_entities: int, num_relations: int, dim: int, batch_size: int, negatives: int
) -> None:
    """Print the seconds of one epoch of DistMult on such a graph."""
    triples = torch.from_numpy(drawn(num_edges, num_entities, num_relations))
    factory = CoreTriplesFactory(triples, num_entities=num_entities, num_relations=num_relations)
    options: dict[str, Any] = {"embedding_dim": dim, "regularizer": "no", "entity_constrainer": None}
    loss = NSSALoss(margin=0.0, adversarial_temperature=1.0)
    made = model_resolver.make("DistMult", triples_factory=factory, loss=loss, random_seed=0, **options)
    loop = SLCWATrainingLoop(
        model=made,
        triples_factory=factory,
        optimizer=torch.optim.Adam(made.get_grad_params(), lr=1e-3),
        automatic_memory_optimization=False,
        negative_sampler="basic",
        negative_sampler_kwargs={"num_negs_per_pos": negatives},
    )
    print(json.dumps(_trained(loop, factory, 1, batch_size)))


def _trained(loop: Any, factory: Any, epochs: int, batch_size: int) -> float:
    gc.collect()
    gc.freeze()
    started = time.perf_counter()
    loop.train(
        triples_factory=factory,
        num_epochs=epochs,
        batch_size=batch_size,
        num_workers=0,
        pin_memory=False,
        checkpoint_on_failure=False,
        use_tqdm=False,
        use_tqdm_batch=False,
    )
    return time.perf_counter() - started


def main(name: str, kind: str, dim: int, epochs: int, rate: float, margin: float, negatives: int, seed: int) -> None:
    """Train and rank."""
    set_random_seed(seed)
    data = get_dataset(dataset=name)
    options: dict[str, Any] = {"embedding_dim": dim}
    options |= (
        {"relation_dim": dim, "scoring_fct_norm": 1, "max_projection_norm": 1e9}
        if kind == "TransR"
        else {"regularizer": "no", "entity_constrainer": None}
    )
    loss = NSSALoss(margin=margin, adversarial_temperature=1.0)
    made = model_resolver.make(kind, triples_factory=data.training, loss=loss, random_seed=seed, **options)
    loop = SLCWATrainingLoop(
        model=made,
        triples_factory=data.training,
        optimizer=torch.optim.Adam(made.get_grad_params(), lr=rate),
        automatic_memory_optimization=False,
        negative_sampler="basic",
        negative_sampler_kwargs={"num_negs_per_pos": negatives},
    )
    seconds = _trained(loop, data.training, epochs, 512)
    found = RankBasedEvaluator(filtered=True).evaluate(
        model=made,
        mapped_triples=data.testing.mapped_triples,
        batch_size=256,
        use_tqdm=False,
        additional_filter_triples=[data.training.mapped_triples, data.validation.mapped_triples],
    )
    print(json.dumps([float(found.get_metric("both.realistic.inverse_harmonic_mean_rank")), seconds]))


if __name__ == "__main__":
    if len(sys.argv) == 7:
        time_epoch(*map(int, sys.argv[1:]))
        sys.exit()
    name, kind, dim, epochs, rate, margin, negatives, seed = sys.argv[1:]
    main(name, kind, int(dim), int(epochs), float(rate), float(margin), int(negatives), int(seed))
