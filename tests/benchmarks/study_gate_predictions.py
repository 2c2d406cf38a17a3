"""Predictions of several random starts of one recipe, on days that they had not seen, for the study of the gate."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date, timedelta
from pathlib import Path

import numpy as np
import pyarrow as pa
import torch

from components.common.layout import Store
from components.common.lineage import Lineage
from components.features.examples import read_examples
from components.features.objectives import DEFAULT_SERVED, OBJECTIVE_NAMES
from components.join.assemble import JoinJob
from components.join.run import join_days
from components.make_logs.run import make_logs
from components.ranker.dataset import tensors_of
from components.ranker.prediction import predict
from components.train.trainer import Trainer
from components.train.training_state import new_state
from data_validation.logs.validate import validate_logs
from pipelines.config import RunConfig, load_config

FOLDER = Path("build/study-gate")
# The demo's trial, and the default one.
JOURNEY_DAYS, SIMULATED_DAYS = 10, 28


@dataclass(frozen=True)
class Source:
    """Where predictions come from: a store with examples, and the days after its batch."""

    name: str
    config: RunConfig
    store: Store
    days: list[date]

    @property
    def folder(self) -> Path:
        """Of its predictions and results."""
        return FOLDER / self.name


def journey() -> Source:
    """The demo's logs, recipe and days."""
    return _joined("journey", load_config("complete_journey"), JOURNEY_DAYS)


def simulated() -> Source:
    """Logs of the shipped simulator configuration."""
    values = load_config("simulator").model_dump(mode="json")
    values["source"]["last_day"] = str(date.fromisoformat(values["source"]["last_day"]) + timedelta(days=60))
    return _joined("simulated", RunConfig.parse(values, "simulated"), SIMULATED_DAYS)


def _joined(name: str, config: RunConfig, num_days: int) -> Source:
    """Logs, joined until `num_days` after the batch, in the study's own folder."""
    store, first = Store(str(FOLDER / name / "store")), config.schedule.first_day
    scored = first + timedelta(days=config.schedule.num_batch_days)
    last = scored + timedelta(days=num_days - 1)
    as_of = config.dataset.mature_on(last) + timedelta(days=1)
    read = config.dataset.days_read(first, last, config.features.history_days)
    make_logs(store.root, config.dataset, config.source.model_dump(mode="json"), read)
    validate_logs(store.root, config.dataset, config.validation, read, as_of)
    join_days(store.root, JoinJob(config.dataset, config.features, config.join, first, last, as_of, scored))
    return Source(name, config, store, [scored + timedelta(days=number) for number in range(num_days)])


def predict_days(source: Source, start: int) -> None:
    """Train one start of the Sparse Optimizer's recipe, and keep what it predicts of each day; the labels beside it."""
    path = source.folder / f"start-{start}.npz"
    if path.exists():
        return
    config, recipe = source.config, source.config.arms["sparse_optimizer"].start(start)
    torch.set_num_threads(recipe.num_threads)
    first = config.schedule.first_day
    batch_days = config.dataset.open_days(first, source.days[0] - timedelta(days=1))
    read = [read_examples(source.store, "training", day) for day in batch_days]
    rate = read[0][1].negative_keep_rate
    batch = tensors_of(pa.concat_tables([table for table, _ in read]), config.features, unsampled=False)
    lineage = Lineage(
        arm="study", first_day=first, trained_through=batch_days[-1], parent="", step=0, negative_keep_rate=rate
    )
    state = new_state(config.features, recipe, lineage)
    state.model.net.fit([batch])
    trainer = Trainer(state.model, state.optimizer, recipe, "study")
    for epoch in range(recipe.epochs):
        trainer.train_epoch(batch.shuffled(recipe.batch_size, recipe.seed % 1000 + trainer.step), len(batch), epoch)
    kept, facts = {}, {}
    for number, day in enumerate(source.days):
        unseen = tensors_of(read_examples(source.store, "evaluation", day)[0], config.features, unsampled=True)
        predictions = predict(state.model, rate, unseen, 4096)
        for name in DEFAULT_SERVED:
            column = OBJECTIVE_NAMES.index(name)
            rows = unseen.masks[:, column].numpy() > 0
            kept[f"{number}-{name}"] = predictions[rows, column]
            facts[f"{number}-{name}-labels"] = unseen.labels[rows, column].numpy()
            facts[f"{number}-{name}-users"] = unseen.users[rows]
        training = tensors_of(read_examples(source.store, "training", day)[0], config.features, unsampled=False)
        trainer.train_epoch(training.shuffled(recipe.batch_size, recipe.seed % 1000 + trainer.step), len(training), 0)
    np.savez(source.folder / "facts.npz", **facts)
    np.savez(path, **kept)
