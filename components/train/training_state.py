"""A model in training: its making, and its checkpoints."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import date
from functools import partial
from itertools import chain
from typing import Any

import torch
from torch import Tensor
from torchrec.distributed import DistributedModelParallel

from components.common import storage
from components.common.digests import canonical_json
from components.common.layout import Store
from components.common.lineage import Lineage
from components.common.manifests import Manifest, Origin, read_manifest, verified_bytes
from components.features.feature_list import FeatureConfig
from components.ranker.checkpoint import MODEL_FILE, CheckpointManifest, fitting, load_weights
from components.ranker.dataset import ExampleSet
from components.ranker.ranker import Ranker
from components.tables.optimizer import ModelOptimizer
from components.tables.processes import ALONE, Process
from components.tables.shard_layout import HeldRows
from components.tables.sharding import shard
from components.tables.state_files import read_state, write_state
from components.tables.table_model import TABLES_WEIGHT
from components.train.config import ExecutionConfig, TrainConfig

_OPTIMIZER_FILE = "optimizer.safetensors"


@dataclass
class TrainingState:
    """A model in training.

    Attributes:
        model: The ranker; over several processes, with this one's rows of the tables.
        optimizer: Its optimizer.
        features: Its feature list.
        config: Its recipe.
        lineage: Where it comes from.
        process: This one of those that train it.
        parallel: What spreads the ranker over processes, or None.
    """

    model: Ranker
    optimizer: ModelOptimizer
    features: FeatureConfig
    config: TrainConfig
    lineage: Lineage
    process: Process = ALONE
    parallel: DistributedModelParallel | None = None

    @property
    def title(self) -> str:
        """How progress and logs name the run."""
        return f"train {self.lineage.arm}"

    @property
    def held(self) -> HeldRows:
        """The rows that this process holds."""
        return HeldRows.alone(self.features) if self.parallel is None else self.parallel.module.embeddings.held

    def fit(self, parts: Iterable[ExampleSet]) -> None:
        """Fit what the net takes from its examples before training; all processes at once."""
        self.model.net.fit(parts)
        self.process.copy_from_first(self.model.net.state_dict().values())

    def write(self, folder: str) -> list[str]:
        """Write weights and optimizer as files; returns the names of this process's; all processes at once."""
        return [
            *write_state(folder, MODEL_FILE, self.model.state_dict(), TABLES_WEIGHT.__eq__, self.held),
            *write_state(folder, _OPTIMIZER_FILE, self.optimizer.state_tensors(), self.optimizer.is_by_row, self.held),
        ]

    def read(self, uri: str, manifest: Manifest) -> None:
        """Take over what `write` wrote for the same recipe, in whatever number of processes.

        Raises:
            InputError: If a file is damaged, or it was another recipe.
        """
        read = partial(verified_bytes, uri, manifest)
        load_weights(self.model, uri, read, self.held)
        with fitting(uri):
            own, by_row = self.optimizer.state_tensors(), self.optimizer.is_by_row
            self.optimizer.load_state_tensors(read_state(read, _OPTIMIZER_FILE, by_row, self.held, own))

    def check_finite(self) -> None:
        """Check the weights, which no loss has seen since the last update; all processes at once.

        Raises:
            FloatingPointError: On all processes, naming the weights with numbers that are not finite.
        """
        weights = self.model.state_dict()
        own = [name for name, value in weights.items() if value.is_floating_point() and not _is_finite(value)]
        damaged = sorted({*chain(*self.process.gathered(own))})
        if damaged:
            raise FloatingPointError(
                f"{self.title}: {len(damaged)} weights such as {', '.join(damaged[:3])} are not finite after the last "
                "update; lower optimizer.learning_rate or set optimizer.max_gradient_norm"
            )


def new_state(
    features: FeatureConfig, config: TrainConfig, lineage: Lineage, process: Process = ALONE
) -> TrainingState:
    """A freshly initialised model, the same for the same seed in any number of processes; all of them at once.

    Raises:
        InputError: If the tables do not fit, or the recipe's optimizer moves all rows at every step.
    """

    def make(held: HeldRows | None) -> Ranker:
        torch.manual_seed(config.seed)
        return Ranker(features, config.model, held)

    parallel = None
    if process.is_alone:
        model = make(None).to(process.device)
    else:
        part = config.batch_size // process.share.world_size
        parallel = shard(make, features, part, config.execution.sharding, process.device)
        model = parallel.module
    return TrainingState(model, ModelOptimizer(model, config.optimizer), features, config, lineage, process, parallel)


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
    state.read(uri, checkpoint)
    return state, checkpoint.checkpoint_digest


def write_checkpoint(
    store: Store, state: TrainingState, origin: Origin, curves: dict[str, list[dict[str, Any]]], tests: dict[str, Any]
) -> CheckpointManifest | None:
    """Write a checkpoint, with `curves` as files of points; `tests` is what the manifest says of the tests.

    Over several processes all take part, and those but the first get None.
    """
    state.check_finite()

    def write(folder: str) -> Iterator[str]:
        yield from state.write(folder)
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


def _is_finite(values: Tensor) -> bool:
    """Whether all numbers are; in runs of rows, since torch makes copies on the way."""
    runs = values.split(2**16) if values.dim() else (values,)
    return all(bool(run.isfinite().all()) for run in runs)
