"""Ids by hash, by binary code and exact: AUC of unseen next days on the demo's examples and on simulated ones.

The recipe is the Sparse Optimizer with FAL on rows that are updated lazily, trained by the pipeline's own steps; each
continual day is scored before it is trained on. Only the rows of the users' and the items' tables differ. Everything is
kept in build/study-gate, beside the study of the gate; a second call goes on. Prints one figure a line.

`python -m tests.benchmarks.study_exact_ids [seeds] [journey|simulated]`
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import Any

import numpy as np

from components.features.examples import EVALUATION, read_examples
from components.features.feature_list import FeatureConfig
from components.features.objectives import DEFAULT_SERVED, OBJECTIVE_NAMES
from components.features.vectors import KnownVectors
from components.ranker.auc import weighted_auc
from components.ranker.checkpoint import TrainedRanker
from components.ranker.dataset import tensors_of
from components.tables.config import FrequencyAdaptive
from components.train.config import TrainConfig
from components.train.one_model import train_batch, train_day
from tests.benchmarks.study_gate_predictions import Source, journey, simulated

NUM_DAYS = 5
# Of these tables the rows differ; their sizes are about those of the ids that the batch has.
TABLES = {"journey": {"user_id": 2500, "item_id": 15_000}, "simulated": {"user_id": 6000, "item_id": 3000}}


def ways(num_ids: int) -> dict[str, dict[str, Any]]:
    """How ids may get their rows, by name."""
    size = 2 ** int(np.ceil(np.log2(num_ids)))
    code = {"code_bits": 24, "block_bits": max(size.bit_length() - 2, 2), "combine": "sum"}
    return {
        "hash_quarter": {"num_rows": size // 4},
        "hash": {"num_rows": size},
        "hash_times_4": {"num_rows": 4 * size},
        "binary_code": {"binary_code": code},
        "exact": {"exact": {"capacity": size, "admit_after": 2}},
        "exact_half": {"exact": {"capacity": num_ids // 2, "admit_after": 2}},
    }


def features_of(source: Source, way: str) -> FeatureConfig:
    """The source's feature list with other rows of some tables."""
    values, sizes = source.config.features.model_dump(mode="json"), TABLES[source.name]
    values["categorical"] = [
        {"name": feature["name"], **ways(sizes[feature["name"]])[way]} if feature["name"] in sizes else feature
        for feature in values["categorical"]
    ]
    return FeatureConfig.parse(values, way)


def recipe_of(source: Source, seed: int) -> TrainConfig:
    """The Sparse Optimizer with FAL."""
    recipe = source.config.arms["sparse_optimizer"]
    changes = {"tables": "lazy_adam", "frequency_adaptive": FrequencyAdaptive()}
    optimizer = recipe.optimizer.model_copy(update=changes)
    return recipe.model_copy(update={"optimizer": optimizer, "seed": seed, "replicas": 1})


def aucs_of(source: Source, features: FeatureConfig, recipe: TrainConfig, arm: str) -> dict[str, float]:
    """Mean AUC over the days, by served objective, of an arm that is trained on the way."""
    root, days = source.store.root, source.days[:NUM_DAYS]
    batch_days = source.config.dataset.open_days(source.config.schedule.first_day, days[0])[:-1]
    train_batch(root, arm, features, recipe, batch_days)
    found: dict[str, list[float]] = {name: [] for name in DEFAULT_SERVED}
    for before, day in zip([batch_days[-1], *days], days, strict=False):
        ranker = TrainedRanker.load(source.store, arm, before)
        vectors = KnownVectors.before(source.store, features, day, day)
        unseen = tensors_of(read_examples(source.store, EVALUATION, day)[0], features, True, ranker.indexes, vectors)
        predictions = ranker.predict(unseen, 4096)
        for name in DEFAULT_SERVED:
            column = OBJECTIVE_NAMES.index(name)
            rows = unseen.masks[:, column].numpy() > 0
            labels, ones = unseen.labels[rows, column].numpy(), np.ones((int(rows.sum()), 1))
            found[name].append(float(weighted_auc(labels, predictions[rows, column], ones)[0]))
        if day != days[-1]:
            train_day(root, arm, features, recipe, day, before)
    return {name: float(np.mean(aucs)) for name, aucs in found.items()}


def figures(source: Source, num_seeds: int) -> Iterator[str]:
    """One line each."""
    for way in ways(1024):
        features, arm = features_of(source, way), way.replace("_", "-")
        runs = [aucs_of(source, features, recipe_of(source, seed), f"{arm}-{seed}") for seed in range(num_seeds)]
        for name in DEFAULT_SERVED:
            aucs = [run[name] for run in runs]
            yield f"study.ids.{source.name}.{way}.{name}: {np.mean(aucs):.4f}, seeds {min(aucs):.4f} to {max(aucs):.4f}"


def main(num_seeds: int = 3, *names: str) -> None:
    """Print the figures."""
    for name, make in (("simulated", simulated), ("journey", journey)):
        for line in figures(make(), num_seeds) if not names or name in names else ():
            print(line, flush=True)


if __name__ == "__main__":
    main(*[int(text) if text.isdigit() else text for text in sys.argv[1:]])
