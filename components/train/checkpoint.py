"""Training state as safetensors, written aside and moved into place."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date
from typing import Any

import safetensors.torch
import torch
from torch import Tensor, distributed
from torchrec.distributed import DistributedModelParallel

from components.common import storage
from components.common.config import Config
from components.common.digests import canonical_json
from components.common.errors import InputError
from components.common.features import FeatureConfig
from components.common.layout import CHECKPOINT_KIND, Store
from components.common.manifests import Manifest, find_manifest, read_manifest, verify_files, write_artifact
from components.common.progress import log_line
from components.common.release import BATCH, DAILY, EXPERIMENT_CHANNEL, PRODUCTION_CHANNEL, read_pointer
from components.train.config import TrainConfig
from components.train.model.ranker import Ranker
from components.train.optimizer import RankerOptimizer
from components.train.processes import Process
from components.train.sharded_training import gather_state, local_state
from components.train.sharding import shard

MODEL_FILE = "model.safetensors"
_OPTIMIZER_FILE = "optimizer.safetensors"


class Lineage(Config):
    """Where a checkpoint comes from.

    Attributes:
        arm: Its recipe's name.
        first_day: First day that it was trained on.
        trained_through: Last day that it was trained on.
        parent: Digest of the checkpoint that it was warm-started from; empty after the batch.
        step: Updates so far.
        negative_keep_rate: Share of negatives in its training examples.
    """

    arm: str
    first_day: date
    trained_through: date
    parent: str
    step: int
    negative_keep_rate: float


@dataclass
class TrainingState:
    """A model in training.

    Attributes:
        model: The ranker.
        optimizer: Its optimizer.
        features: Its feature list.
        config: Its recipe.
        lineage: Where it comes from.
        parallel: What spreads the ranker over processes, or None.
    """

    model: Ranker
    optimizer: RankerOptimizer
    features: FeatureConfig
    config: TrainConfig
    lineage: Lineage
    parallel: DistributedModelParallel | None = None

    @property
    def title(self) -> str:
        """How progress and logs name the run."""
        return f"train {self.lineage.arm}"

    def spread(self, process: Process) -> None:
        """Move to the process's device; over several processes, spread the tables; all of them at once.

        Raises:
            InputError: If the tables do not fit, or the recipe's optimizer moves all rows at every step.
        """
        if process.is_alone and process.device == self.model.embeddings.weight.device:
            return
        before = self.optimizer.state_tensors()
        if process.is_alone:
            self.model.to(process.device)
        else:
            part = self.config.batch_size // process.share.world_size
            self.parallel = shard(self.model, self.features, part, self.config.execution.sharding, process.device)
            self.model = self.parallel.module
        self.optimizer = RankerOptimizer(self.model, self.config.optimizer)
        self.load_optimizer(before)

    def load_optimizer(self, tensors: dict[str, Tensor]) -> None:
        """Take over the optimizer's state, of all rows."""
        if self.parallel is not None:
            tensors = local_state(tensors, self.optimizer, self.parallel.module.embeddings)
        self.optimizer.load_state_tensors(tensors)

    def load_model(self, tensors: dict[str, Tensor]) -> None:
        """Take over the model's weights, of all rows."""
        if self.parallel is not None:
            embeddings = self.parallel.module.embeddings
            name = "embeddings.weight"
            tensors = {**tensors, name: embeddings.shards.take(tensors[name], distributed.get_rank())}
        self.model.load_state_dict(tensors)

    def tensors(self) -> tuple[dict[str, Tensor], dict[str, Tensor]] | None:
        """The model's and the optimizer's, of all rows; only on the first process; all processes at once."""
        if self.parallel is not None:
            return gather_state(self.parallel, self.optimizer)
        return self.model.state_dict(), self.optimizer.state_tensors()


def new_state(features: FeatureConfig, config: TrainConfig, lineage: Lineage) -> TrainingState:
    """A freshly initialised model, the same for the same seed."""
    torch.manual_seed(config.seed)
    model = Ranker(features, config.model)
    return TrainingState(model, RankerOptimizer(model, config.optimizer), features, config, lineage)


def checkpoint_digest(manifest: Manifest) -> str:
    """Names a checkpoint: the digest of its model file."""
    return next(entry.sha256 for entry in manifest.files if entry.name == MODEL_FILE)


def write_checkpoint(
    store: Store,
    state: TrainingState,
    inputs: dict[str, str],
    settings: dict[str, Any],
    curves: dict[str, list[dict[str, Any]]],
    details: dict[str, Any],
) -> Manifest | None:
    """Write a checkpoint; `inputs` and `settings` decide when it must be made again, `curves` are files of points.

    Over several processes all take part, the first one writes, and the others get None.
    """
    tensors = state.tensors()
    if tensors is None:
        return None

    def write(staged: str) -> None:
        write_tensors(staged, *tensors)
        for name, points in curves.items():
            storage.write_bytes(storage.join_uri(staged, name), canonical_json(points))

    details = {"lineage": state.lineage.model_dump(mode="json"), **details}
    manifest = Manifest(kind=CHECKPOINT_KIND, inputs=inputs, settings=settings, details=details)
    return write_artifact(store.checkpoint(state.lineage.arm, state.lineage.trained_through), manifest, write)


def write_tensors(uri: str, model: dict[str, Tensor], optimizer: dict[str, Tensor]) -> None:
    """Write the weights and the optimizer's state as safetensors."""
    for name, tensors in ((MODEL_FILE, model), (_OPTIMIZER_FILE, optimizer)):
        content = safetensors.torch.save({key: value.cpu().contiguous() for key, value in tensors.items()})
        storage.write_bytes(storage.join_uri(uri, name), content)


def read_tensors(uri: str, state: TrainingState) -> None:
    """Take over what `write_tensors` wrote for the same recipe.

    Raises:
        InputError: If it was another recipe.
    """
    weights = safetensors.torch.load(storage.read_bytes(storage.join_uri(uri, MODEL_FILE)))
    try:
        state.load_model(weights)
    except RuntimeError as error:
        raise InputError(f"{uri}: does not fit its recipe: {' '.join(str(error).split())}") from error
    moments = safetensors.torch.load(storage.read_bytes(storage.join_uri(uri, _OPTIMIZER_FILE)))
    state.load_optimizer(moments)


def prune_checkpoints(store: Store, arm: str, trained: date, keep_days: int | None) -> None:
    """Delete an arm's old checkpoints after a day was trained on.

    There stay the newest `keep_days` up to that day, later ones, the first, which holds the batch, those whose version
    a channel points to, as it is scored beside the arms, and all from the last finished run's day on: the next run
    scores that day's checkpoint, and training may be ahead of scoring.
    """
    finished = [*store.closed_days(DAILY), *store.closed_days(BATCH)]
    if keep_days is None or not finished:
        return
    days = [day for day in store.checkpoint_days(arm) if day <= trained]
    pointers = [read_pointer(store, channel) for channel in (PRODUCTION_CHANNEL, EXPERIMENT_CHANNEL)]
    in_use = {pointer.trained_through for pointer in pointers if pointer is not None and pointer.arm == arm}
    for day in days[1:-keep_days]:
        if day not in in_use and day < max(finished):
            storage.remove(store.checkpoint(arm, day))
            log_line("train", f"{arm} {day}: checkpoint deleted, train.execution.keep_days = {keep_days}")


def find_checkpoint(store: Store, arm: str, through: date) -> Manifest | None:
    """The manifest of an arm's checkpoint after a day, or None."""
    return find_manifest(store.checkpoint(arm, through), CHECKPOINT_KIND)


def load_checkpoint(store: Store, arm: str, through: date) -> tuple[TrainingState, str]:
    """Load an arm's training state after a day, and the checkpoint's digest.

    Raises:
        InputError: If the checkpoint is absent, damaged, or does not fit its own recipe.
    """
    uri = store.checkpoint(arm, through)
    manifest = read_manifest(uri, CHECKPOINT_KIND)
    verify_files(uri, manifest)
    state = new_state(
        FeatureConfig.parse(manifest.settings["features"], f"{uri}: features"),
        TrainConfig.parse(manifest.settings["train"], f"{uri}: train"),
        Lineage.parse(manifest.details["lineage"], f"{uri}: lineage"),
    )
    read_tensors(uri, state)
    return state, checkpoint_digest(manifest)
