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
from components.common.digests import canonical_json
from components.common.errors import InputError
from components.common.layout import Store
from components.common.lineage import Lineage
from components.common.manifests import Origin, read_manifest, verify_files, write_artifact
from components.features.feature_list import FeatureConfig
from components.ranker.checkpoint import MODEL_FILE, CheckpointManifest
from components.ranker.ranker import Ranker
from components.tables.optimizer import ModelOptimizer
from components.tables.processes import Process
from components.tables.sharded_state import gather_state, local_state
from components.tables.sharding import shard
from components.train.config import TrainConfig

_OPTIMIZER_FILE = "optimizer.safetensors"


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
    optimizer: ModelOptimizer
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
        self.optimizer = ModelOptimizer(self.model, self.config.optimizer)
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
    return TrainingState(model, ModelOptimizer(model, config.optimizer), features, config, lineage)


def load_state(store: Store, arm: str, through: date) -> tuple[TrainingState, str]:
    """Load an arm's training state after a day, and the checkpoint's digest.

    Raises:
        InputError: If the checkpoint is absent, damaged, or does not fit its own recipe.
    """
    uri = store.checkpoint(arm, through)
    checkpoint = read_manifest(uri, CheckpointManifest)
    verify_files(uri, checkpoint)
    config = TrainConfig.parse(checkpoint.recipe, f"{uri}: recipe")
    state = new_state(checkpoint.features, config, checkpoint.lineage)
    read_tensors(uri, state)
    return state, checkpoint.checkpoint_digest


def write_checkpoint(
    store: Store, state: TrainingState, origin: Origin, curves: dict[str, list[dict[str, Any]]], tests: dict[str, Any]
) -> CheckpointManifest | None:
    """Write a checkpoint, with `curves` as files of points; `tests` is what the manifest says of the tests.

    Over several processes all take part, the first one writes, and the others get None.
    """
    tensors = state.tensors()
    if tensors is None:
        return None
    check_finite(tensors[0], state.title)

    def write(folder: str) -> None:
        write_tensors(folder, *tensors)
        for name, points in curves.items():
            storage.write_bytes(storage.join_uri(folder, name), canonical_json(points))

    manifest = CheckpointManifest(
        origin=origin,
        features=state.features,
        model=state.config.model,
        recipe=state.config.recipe(),
        num_threads=state.config.num_threads,
        lineage=state.lineage,
        **tests,
    )
    return write_artifact(store.checkpoint(state.lineage.arm, state.lineage.trained_through), manifest, write)


def check_finite(weights: dict[str, Tensor], title: str) -> None:
    """Check a model's weights, which no loss has seen since the last update.

    Raises:
        FloatingPointError: Naming the weights with numbers that are not finite.
    """
    damaged = [name for name, values in weights.items() if values.is_floating_point() and not values.isfinite().all()]
    if damaged:
        raise FloatingPointError(
            f"{title}: {len(damaged)} weights such as {', '.join(damaged[:3])} are not finite after the last update; "
            "lower optimizer.learning_rate or set optimizer.max_gradient_norm"
        )


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
