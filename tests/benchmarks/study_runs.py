"""Runs of the training studies: train one recipe, score it on the way, and keep the outcome as one file.

A run's file carries a digest of everything that it depends on, so a study that was stopped goes on where it was, and a
changed setting runs again.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from datetime import date
from functools import lru_cache
from multiprocessing import get_context, parent_process
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from pydantic import Field

from components.common.config import Config
from components.common.digests import canonical_json, digest_json
from components.common.layout import Store
from components.common.lineage import Lineage
from components.common.progress import Progress
from components.features.examples import EVALUATION, TRAINING, check_made_alike, read_examples
from components.features.feature_list import FeatureConfig
from components.features.objectives import OBJECTIVES
from components.ranker.auc import weighted_auc
from components.ranker.dataset import ExampleSet, tensors_of
from components.ranker.prediction import predict
from components.train.config import TrainConfig
from components.train.trainer import Trainer
from components.train.training_state import TrainingState, new_state
from tests.benchmarks.study_ids import Simulation, World

_SCORE_ROWS = 4096
_TRAIN_STREAM, _TEST_STREAM, _FIRST_DAY_STREAM = 1, 2, 3


class StoredDays(Config):
    """Examples in a store: batch days, and the continual days after them.

    Attributes:
        examples_digest: Of all that is read.
    """

    store_uri: str
    batch_days: tuple[date, ...]
    continual_days: tuple[date, ...]
    features: FeatureConfig
    examples_digest: str


class Run(Config):
    """One recipe on one seed.

    Attributes:
        name: The setting and the arm, e.g. `harsh/baseline`.
        source: Where the examples come from; a simulated world is drawn with the recipe's seed.
        recipe: The recipe.
        evaluate_at: Epochs after which to score the test examples; a multiple of 0.05.
        continual: Whether the continual days follow, each scored before it is trained on.
        version: Raised when the code changes so that earlier files no longer hold.
    """

    name: str
    source: Simulation | StoredDays
    recipe: TrainConfig
    evaluate_at: tuple[float, ...] = ()
    continual: bool = False
    version: int = 1

    def path(self, folder: Path) -> Path:
        """The file of its outcome."""
        key = {**self.model_dump(mode="json"), "source": _identity(self.source)}
        name = self.name.replace("/", "-")
        return folder / f"{name}-seed_{self.recipe.seed}-{digest_json(key)[:12]}.json"


def _identity(source: Simulation | StoredDays) -> dict[str, Any]:
    # The same examples in another folder are the same.
    return source.model_dump(mode="json", exclude={"store_uri"})


class Evaluation(Config):
    """Loss in nats and AUC by objective, None without both classes; `at` is an epoch, or the number of a day."""

    at: float
    losses: tuple[float, ...]
    aucs: tuple[float | None, ...]


class Outcome(Config):
    """What a run found.

    Attributes:
        run: The run.
        seconds: What it took.
        training: Points of the loss curve: `step`, `epoch`, and a loss by objective.
        tests: Evaluations of the test examples.
        days: Evaluations of the continual days.
        positives: Of the batch examples, by objective.
    """

    run: Run
    seconds: float = Field(ge=0)
    training: list[dict[str, Any]]
    tests: list[Evaluation]
    days: list[Evaluation]
    positives: list[int]


@dataclass(frozen=True)
class StudyExamples:
    """What a run trains and is scored on.

    Attributes:
        batch: Trained on in epochs.
        test: Scored on the way.
        days: What each continual day is scored on, and what it is trained on.
        negative_keep_rate: Of the examples to train on.
    """

    batch: ExampleSet
    test: ExampleSet
    days: list[tuple[ExampleSet, ExampleSet]]
    negative_keep_rate: float


@lru_cache(maxsize=1)
def _simulated(simulation: Simulation, seed: int) -> StudyExamples:
    world = World(simulation, seed)
    days = [world.draw(simulation.day_rows, _FIRST_DAY_STREAM + day) for day in range(simulation.num_days)]
    return StudyExamples(
        batch=world.draw(simulation.train_rows, _TRAIN_STREAM),
        test=world.draw(simulation.test_rows, _TEST_STREAM),
        days=[(day, day) for day in days],
        negative_keep_rate=1.0,
    )


@lru_cache(maxsize=1)
def _stored(source: StoredDays) -> StudyExamples:
    store = Store(source.store_uri)
    batch = [read_examples(store, TRAINING, day) for day in source.batch_days]
    training = [read_examples(store, TRAINING, day) for day in source.continual_days]
    evaluation = [read_examples(store, EVALUATION, day)[0] for day in source.continual_days]
    days = [
        (tensors_of(unseen, source.features, unsampled=True), tensors_of(table, source.features, unsampled=False))
        for unseen, (table, _) in zip(evaluation, training, strict=True)
    ]
    return StudyExamples(
        batch=tensors_of(pa.concat_tables([table for table, _ in batch]), source.features, unsampled=False),
        test=tensors_of(pa.concat_tables(evaluation), source.features, unsampled=True),
        days=days,
        negative_keep_rate=check_made_alike([manifest for _, manifest in batch + training]).negative_keep_rate,
    )


def load(source: Simulation | StoredDays, seed: int) -> StudyExamples:
    """The examples of a run; those of the last call are kept."""
    return _simulated(source, seed) if isinstance(source, Simulation) else _stored(source)


def train(state: TrainingState, trainer: Trainer, examples: ExampleSet, epoch: int) -> Iterator[int]:
    """Train on shuffled examples; yields the number of batches done after each."""
    config = state.config
    state.optimizer.start_epoch(epoch, config.seed)
    seed = config.seed * 1_000_003 + trainer.step
    num_batches = -(-len(examples) // config.batch_size)
    for number, batch in enumerate(examples.shuffled(config.batch_size, seed), start=1):
        state.model.train()
        trainer.train_step(batch)
        if number % config.steps_per_point == 0 or number == num_batches:
            trainer.curve.close_point(trainer.step, epoch, number * config.batch_size)
        yield number


def evaluate(state: TrainingState, examples: ExampleSet, at: float) -> Evaluation:
    """Score examples with the model as it is."""
    probabilities = (
        predict(state.model, state.lineage.negative_keep_rate, examples, _SCORE_ROWS)
        .astype(np.float64)
        .clip(1e-7, 1 - 1e-7)
    )
    labels, masks = examples.labels.numpy(), examples.masks.numpy() > 0
    losses, aucs = [], []
    for number in range(len(OBJECTIVES)):
        rows = masks[:, number]
        label, predicted = labels[rows, number], probabilities[rows, number]
        losses.append(float(-np.log(np.where(label > 0, predicted, 1 - predicted)).mean()) if rows.any() else 0.0)
        both = 0 < label.sum() < len(label)
        aucs.append(float(weighted_auc(label, predicted, np.ones((len(label), 1)))[0]) if both else None)
    return Evaluation(at=at, losses=tuple(losses), aucs=tuple(aucs))


def execute(run: Run, examples: StudyExamples) -> Outcome:
    """Train and score."""
    started, recipe = time.monotonic(), run.recipe
    torch.set_num_threads(recipe.num_threads)
    state = new_state(examples.batch.features, recipe, _lineage(run, examples.negative_keep_rate))
    batch = examples.batch
    state.model.net.fit([batch])
    trainer = Trainer(state.model, state.optimizer, recipe, run.name)
    adaptive = recipe.optimizer.frequency_adaptive
    if adaptive is not None and adaptive.counts == "precomputed":
        trainer.count_rows([batch])
    num_batches = -(-len(batch) // recipe.batch_size)
    tests, days = [], []
    for epoch in range(recipe.epochs):
        wanted = {round((at - epoch) * num_batches): at for at in run.evaluate_at if epoch < at <= epoch + 1}
        for done in train(state, trainer, batch, epoch):
            if done in wanted:
                tests.append(evaluate(state, examples.test, wanted[done]))
    training = list(trainer.curve.points)
    for number, (unseen, day) in enumerate(examples.days if run.continual else [], start=1):
        days.append(evaluate(state, unseen, number))
        # Epoch 0: a continual day is seen once, and its tables go on as they are.
        for _ in train(state, trainer, day, 0):
            pass
    assert len(tests) == len(run.evaluate_at), f"{run.name}: {num_batches} batches are too few for {run.evaluate_at}"
    return Outcome(
        run=run,
        seconds=time.monotonic() - started,
        training=training,
        tests=tests,
        days=days,
        positives=[int(count) for count in (batch.labels * batch.masks).sum(dim=0).tolist()],
    )


def _lineage(run: Run, rate: float) -> Lineage:
    day = date.min
    return Lineage(arm=run.name, first_day=day, trained_through=day, parent="", step=0, negative_keep_rate=rate)


def read(run: Run, folder: Path) -> Outcome | None:
    """A run's outcome, or None when it has none yet."""
    path = run.path(folder)
    return Outcome.model_validate_json(path.read_bytes()) if path.exists() else None


def execute_to_file(run: Run, folder: Path) -> float:
    """Train, score and keep the outcome; returns the seconds that it took."""
    outcome = execute(run, load(run.source, run.recipe.seed))
    path = run.path(folder)
    path.parent.mkdir(parents=True, exist_ok=True)
    staged = path.with_suffix(".partial")
    staged.write_bytes(canonical_json(outcome.model_dump(mode="json")))
    staged.replace(path)
    return outcome.seconds


def _end_with_parent() -> None:
    parent = parent_process()
    assert parent is not None

    def watch() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def complete(runs: list[Run], folder: Path, num_processes: int) -> None:
    """Carry out the runs that have no file yet, a line for each; 0 processes means this one."""
    missing = [run for run in runs if not run.path(folder).exists()]
    progress, started = Progress("study-training", len(runs)), time.monotonic()

    def say(done: int, run: Run, seconds: float) -> None:
        left = (time.monotonic() - started) / done * (len(missing) - done) / 60
        note = f"{run.name} seed {run.recipe.seed}: {seconds:.0f} s; about {left:.0f} minutes left"
        progress.update(len(runs) - len(missing) + done, note)

    if not num_processes:
        for done, run in enumerate(missing, start=1):
            say(done, run, execute_to_file(run, folder))
        return
    with ProcessPoolExecutor(num_processes, get_context("spawn"), initializer=_end_with_parent) as pool:
        waiting = {pool.submit(execute_to_file, run, folder): run for run in missing}
        try:
            for done, finished in enumerate(as_completed(waiting), start=1):
                say(done, waiting[finished], finished.result())
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise
