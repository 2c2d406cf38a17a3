"""Training state as safetensors, written aside and moved into place."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date
from typing import Any

import safetensors.torch
import torch
from torch import Tensor

from components.common import storage
from components.common.config import Config
from components.common.digests import canonical_json
from components.common.errors import InputError
from components.common.features import FeatureConfig
from components.common.layout import CHECKPOINT_KIND, LOSS_CURVE_FILE, Store
from components.common.manifests import Manifest, find_manifest, read_manifest, verify_files, write_artifact
from components.train.config import TrainConfig
from components.train.model.ranker import Ranker
from components.train.optimizer import RankerOptimizer

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
    """A model in training."""

    model: Ranker
    optimizer: RankerOptimizer
    features: FeatureConfig
    config: TrainConfig
    lineage: Lineage


def new_state(features: FeatureConfig, config: TrainConfig, lineage: Lineage) -> TrainingState:
    """A freshly initialised model, the same for the same seed."""
    torch.manual_seed(config.seed)
    model = Ranker(features, config.model)
    return TrainingState(model, RankerOptimizer(model, config.optimizer), features, config, lineage)


def checkpoint_digest(manifest: Manifest) -> str:
    """Names a checkpoint: the digest of its model file."""
    return next(entry.sha256 for entry in manifest.files if entry.name == MODEL_FILE)


def write_checkpoint(
    store: Store, state: TrainingState, inputs: dict[str, str], settings: dict[str, Any], points: list[dict[str, Any]]
) -> Manifest:
    """Write a checkpoint with its loss curve; `inputs` and `settings` decide when it must be made again."""

    def write(staged: str) -> None:
        model = safetensors.torch.save({name: t.contiguous() for name, t in state.model.state_dict().items()})
        storage.write_bytes(storage.join_uri(staged, MODEL_FILE), model)
        moments = safetensors.torch.save(_optimizer_tensors(state))
        storage.write_bytes(storage.join_uri(staged, _OPTIMIZER_FILE), moments)
        storage.write_bytes(storage.join_uri(staged, LOSS_CURVE_FILE), canonical_json(points))

    lineage = state.lineage.model_dump(mode="json")
    manifest = Manifest(kind=CHECKPOINT_KIND, inputs=inputs, settings=settings, details={"lineage": lineage})
    return write_artifact(store.checkpoint(state.lineage.arm, state.lineage.trained_through), manifest, write)


def _optimizer_tensors(state: TrainingState) -> dict[str, Tensor]:
    return {name: value.contiguous() for name, value in state.optimizer.state_tensors().items()}


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
    weights = safetensors.torch.load(storage.read_bytes(storage.join_uri(uri, MODEL_FILE)))
    moments = safetensors.torch.load(storage.read_bytes(storage.join_uri(uri, _OPTIMIZER_FILE)))
    try:
        state.model.load_state_dict(weights)
    except RuntimeError as error:
        raise InputError(f"{uri}: does not fit its recipe: {' '.join(str(error).split())}") from error
    state.optimizer.load_state_tensors(moments)
    return state, checkpoint_digest(manifest)
