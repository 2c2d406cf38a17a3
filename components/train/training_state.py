"""A model in training: its making, and its checkpoints."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import date
from functools import partial
from typing import Any

import numpy as np
import torch

from components.common import storage
from components.common.days import number_of
from components.common.digests import canonical_json
from components.common.layout import Store
from components.common.lineage import Lineage
from components.common.manifests import Origin, read_manifest, verified_bytes
from components.features.feature_list import FeatureConfig
from components.features.learned_rows import LearnedRows, RowIndex
from components.ranker.checkpoint import CheckpointManifest
from components.ranker.dataset import ExampleSet
from components.ranker.ranker import Ranker
from components.ranker.vocabularies import indexes_of, new_vocabularies, read_vocabularies, write_vocabularies
from components.tables.look_ups import double_of
from components.tables.model_state import ModelState
from components.tables.optimizer import ModelOptimizer
from components.tables.processes import ALONE, Process
from components.tables.shard_layout import HeldRows
from components.train.config import ExecutionConfig, TrainConfig


@dataclass
class TrainingState:
    """A ranker in training.

    Attributes:
        of_model: The ranker and its optimizer.
        config: Its recipe.
        lineage: Where it comes from.
        vocabularies: Which rows its ids have, by table where training decides it.
    """

    of_model: ModelState[Ranker]
    config: TrainConfig
    lineage: Lineage
    vocabularies: dict[str, LearnedRows]

    @property
    def model(self) -> Ranker:
        """The ranker; over several processes, with this one's rows of the tables."""
        return self.of_model.model

    @property
    def optimizer(self) -> ModelOptimizer:
        """Its optimizer."""
        return self.of_model.optimizer

    @property
    def features(self) -> FeatureConfig:
        """Its feature list."""
        return self.of_model.features

    @property
    def process(self) -> Process:
        """This one of the processes that train it."""
        return self.of_model.process

    @property
    def indexes(self) -> dict[str, RowIndex]:
        """Which row each id has, by table where training decides it."""
        return indexes_of(self.vocabularies)

    @property
    def title(self) -> str:
        """How progress and logs name the run."""
        return f"train {self.lineage.arm}"

    def meet(self, day: date, counted: dict[str, tuple[np.ndarray, np.ndarray]]) -> None:
        """Take in the ids of a day's examples, as `count_ids` has them, before training on them.

        Rows that are given to another id are drawn anew, and begin without moments and frequency, as late rows do. A
        model that has not been trained has none that is not new.
        """
        number = number_of(day)
        for table, vocabulary in self.vocabularies.items():
            given = vocabulary.update(*counted[table], number)
            if self.lineage.step:
                self.of_model.renew(table, given, (self.config.seed, number))

    def note(self, day: date, counted: dict[str, tuple[np.ndarray, np.ndarray]]) -> None:
        """Count the ids of a day's examples, likewise, but give no row to another id."""
        for table, vocabulary in self.vocabularies.items():
            vocabulary.note(*counted[table], number_of(day))

    def fit(self, parts: Iterable[ExampleSet]) -> None:
        """Fit what the net takes from its examples before training; all processes at once."""
        self.model.net.fit(parts)
        self.process.copy_from_first(self.model.net.state_dict().values())


def new_state(
    features: FeatureConfig, config: TrainConfig, lineage: Lineage, process: Process = ALONE
) -> TrainingState:
    """A freshly initialised model, the same for the same seed in any number of processes; all of them at once.

    Raises:
        InputError: If the tables do not fit, or the recipe's optimizer moves all rows at every step.
    """
    sharding, pretrained = config.execution.sharding, config.pretrained
    gated = pretrained.gated_tables if pretrained is not None else ()
    frozen = tuple(map(double_of, gated))
    if pretrained is not None and pretrained.mode == "frozen":
        frozen = pretrained.tables

    def make(held: HeldRows | None) -> Ranker:
        torch.manual_seed(config.seed)
        return Ranker(features, config.model, held, gated)

    state = ModelState.make(make, features, config.optimizer, config.batch_size, sharding, process, frozen)
    return TrainingState(state, config, lineage, new_vocabularies(features))


def load_state(
    store: Store, arm: str, through: date, process: Process = ALONE, execution: ExecutionConfig | None = None
) -> tuple[TrainingState, str]:
    """Load an arm's training state after a day, and the checkpoint's digest; all processes at once.

    `execution` says how it goes on: a checkpoint does not know how it was made.

    Raises:
        InputError: If the checkpoint is absent, damaged, or does not fit its own recipe.
    """
    uri = store.checkpoint(arm, through)
    checkpoint = read_manifest(uri, CheckpointManifest)
    config = TrainConfig.parse(checkpoint.recipe, f"{uri}: recipe")
    if execution is not None:
        config = config.model_copy(update={"execution": execution})
    state = new_state(checkpoint.features, config, checkpoint.lineage, process)
    state.of_model.read(uri, checkpoint)
    state.vocabularies = read_vocabularies(checkpoint.features, partial(verified_bytes, uri, checkpoint))
    return state, checkpoint.checkpoint_digest


def write_checkpoint(
    store: Store, state: TrainingState, origin: Origin, curves: dict[str, list[dict[str, Any]]], tests: dict[str, Any]
) -> CheckpointManifest | None:
    """Write a checkpoint, with `curves` as files of points; `tests` is what the manifest says of the tests.

    Over several processes all take part, and those but the first get None.
    """
    state.of_model.check_finite(state.title)

    def write(folder: str) -> Iterator[str]:
        yield from state.of_model.write(folder)
        yield from write_vocabularies(folder, state.vocabularies) if state.process.is_first else ()
        for name, points in curves.items() if state.process.is_first else ():
            storage.write_bytes(storage.join_uri(folder, name), canonical_json(points))
            yield name

    manifest = CheckpointManifest(
        origin=origin,
        features=state.features,
        model=state.config.model,
        recipe=state.config.recipe(),
        num_threads=state.config.num_threads,
        lineage=state.lineage,
        **tests,
    )
    uri = store.checkpoint(state.lineage.arm, state.lineage.trained_through)
    return state.process.write_artifact(uri, manifest, write)
