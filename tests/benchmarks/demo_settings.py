"""How the demo's settings compare: batch days, then one day at a time, each scored before it is trained on.

Reads the examples that `make demo` left in runs/demo. Prints mean AUC over the continual days, one figure a line.
"""

from __future__ import annotations

import sys
from datetime import date

import numpy as np
import pyarrow as pa
import torch

from components.common.layout import Store
from components.common.lineage import Lineage
from components.common.releases import DAILY
from components.evaluate.logistic_regression import Yardstick
from components.features.examples import read_examples
from components.features.objectives import DEFAULT_SERVED, OBJECTIVE_NAMES
from components.ranker.auc import weighted_auc
from components.ranker.dataset import ExampleSet, tensors_of
from components.ranker.prediction import predict
from components.train.config import TrainConfig
from components.train.trainer import Trainer
from components.train.training_state import new_state
from pipelines.config import RunConfig, load_config

SETTINGS: dict[str, dict] = {
    "demo_control": {"optimizer": {"table_multiplier": 1.0}},
    "demo_candidate": {},
    "lr_1e-4": {"optimizer": {"learning_rate": 1e-4}},
    "lr_5e-4": {"optimizer": {"learning_rate": 5e-4}},
    "embedding_dim_16": {"model": {"embedding_dim": 16}},
    "sequence_dim_32": {"model": {"sequence_dim": 32}},
    "batch_1024": {"batch_size": 1024},
    "epochs_2": {"epochs": 2},
}
SEEDS = (0, 1)


def changed(config: TrainConfig, changes: dict, seed: int) -> TrainConfig:
    """A recipe with some settings changed."""
    values = config.model_dump()
    for key, value in changes.items():
        values[key] = {**values[key], **value} if isinstance(value, dict) else value
    return TrainConfig.model_validate({**values, "seed": seed})


def day_aucs(examples: ExampleSet, by_name: dict[str, np.ndarray]) -> list[float]:
    """AUC of each served objective."""
    found = []
    for name in DEFAULT_SERVED:
        number = OBJECTIVE_NAMES.index(name)
        rows = examples.masks[:, number].numpy() > 0
        labels, ones = examples.labels[rows, number].numpy(), np.ones((int(rows.sum()), 1))
        found.append(float(weighted_auc(labels, by_name[name][rows], ones)[0]))
    return found


def train_and_score(
    config: RunConfig, recipe: TrainConfig, tables: dict[str, pa.Table], continual: list[date], rate: float
) -> np.ndarray:
    """Mean AUC of each served objective over the continual days."""
    batch = tensors_of(tables["batch"], config.features, unsampled=False)
    lineage = Lineage(
        arm="study",
        first_day=config.schedule.first_day,
        trained_through=continual[0],
        parent="",
        step=0,
        negative_keep_rate=rate,
    )
    state = new_state(config.features, recipe, lineage)
    state.model.net.fit([batch])
    trainer = Trainer(state.model, state.optimizer, recipe, "study")
    for epoch in range(recipe.epochs):
        seed = recipe.seed * 1_000_003 + trainer.step
        trainer.train_epoch(batch.shuffled(recipe.batch_size, seed), len(batch), epoch)
    found = []
    for day in continual:
        unseen = tensors_of(tables[f"evaluation/{day}"], config.features, unsampled=True)
        found.append(
            day_aucs(
                unseen,
                dict(
                    zip(
                        OBJECTIVE_NAMES,
                        predict(state.model, rate, unseen, 4096).T,
                        strict=True,
                    )
                ),
            )
        )
        training = tensors_of(tables[f"training/{day}"], config.features, unsampled=False)
        seed = recipe.seed * 1_000_003 + trainer.step
        trainer.train_epoch(training.shuffled(recipe.batch_size, seed), len(training), 0)
    return np.mean(found, axis=0)


def main(store_uri: str = "runs/demo") -> None:
    """Print every setting's figures."""
    config, store = load_config("complete_journey"), Store(store_uri)
    continual = store.finished_days(DAILY)
    if not continual:
        sys.exit(f"{store_uri}: run `make demo` first")
    first = config.schedule.first_day
    batch_days = [date.fromordinal(d) for d in range(first.toordinal(), continual[0].toordinal())]
    read = {day: read_examples(store, "training", day) for day in batch_days + continual}
    rate = read[first][1].negative_keep_rate
    tables = {"batch": pa.concat_tables([read[day][0] for day in batch_days])}
    for day in continual:
        tables[f"training/{day}"] = read[day][0]
        tables[f"evaluation/{day}"] = read_examples(store, "evaluation", day)[0]
    torch.set_num_threads(config.arms["sparse_optimizer"].num_threads)
    for c in (0.01, 0.03, 0.1):
        found = []
        for number, day in enumerate(continual):
            seen = (tensors_of(read[d][0], config.features, unsampled=False) for d in batch_days + continual[:number])
            yardstick = Yardstick(seen, rate, c, DEFAULT_SERVED)
            unseen = tensors_of(tables[f"evaluation/{day}"], config.features, unsampled=True)
            found.append(day_aucs(unseen, yardstick.predict(unseen)))
        report(f"logistic_regression_c_{c}", np.mean(found, axis=0))
    for name, changes in SETTINGS.items():
        base = config.arms["baseline"] if name == "demo_control" else config.arms["sparse_optimizer"]
        runs = [train_and_score(config, changed(base, changes, seed), tables, continual, rate) for seed in SEEDS]
        report(name, np.mean(runs, axis=0))


def report(name: str, aucs: np.ndarray) -> None:
    """Print one line per served objective."""
    for objective, auc in zip(DEFAULT_SERVED, aucs, strict=True):
        print(f"demo_settings.{name}.{objective}: {auc:.4f}", flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
