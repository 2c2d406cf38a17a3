"""Checkpoints: how they are described and found, and a ranker to predict with from one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import date
from functools import partial
from pathlib import PurePosixPath
from typing import Any, ClassVar

import numpy as np
import torch

from components.common.digests import digest_json
from components.common.layout import Store
from components.common.lineage import Lineage
from components.common.manifests import Manifest, find_manifest, read_manifest, verified_bytes
from components.features.feature_list import FeatureConfig
from components.features.learned_rows import RowIndex
from components.ranker.config import ModelConfig, PretrainedConfig
from components.ranker.dataset import ExampleSet
from components.ranker.prediction import predict
from components.ranker.ranker import Ranker
from components.ranker.vocabularies import VOCABULARY_FILE, indexes_of, read_vocabularies
from components.tables.model_state import MODEL_FILE, load_weights
from components.tables.shard_layout import HeldRows


class CheckpointManifest(Manifest):
    """An arm's training state after a day.

    Attributes:
        features: The model's feature list.
        model: Its sizes.
        recipe: All that decided the result of training, as `TrainConfig.recipe` has it.
        num_threads: CPU threads of training, with which predictions are the same to the last bit.
        lineage: Where it comes from.
        jumps_percent: Change of each objective's test loss over every epoch boundary, if the batch was tested.
        stopped_early: Whether early stopping ended the batch.
    """

    kind: ClassVar[str] = "checkpoint"

    features: FeatureConfig
    model: ModelConfig
    recipe: dict[str, Any]
    num_threads: int
    lineage: Lineage
    jumps_percent: tuple[dict[str, float], ...] = ()
    stopped_early: bool = False

    @property
    def checkpoint_digest(self) -> str:
        """What names the checkpoint: the digest of its model file, or of several and its vocabulary together."""
        stems = {PurePosixPath(name).stem for name in (MODEL_FILE, VOCABULARY_FILE)}
        digests = [entry.sha256 for entry in self.files if PurePosixPath(entry.name).stem.partition("-")[0] in stems]
        return digests[0] if len(digests) == 1 else digest_json(digests)

    @property
    def gated_tables(self) -> tuple[str, ...]:
        """Tables whose rows have pretrained ones beside them."""
        pretrained = self.recipe.get("pretrained")
        return PretrainedConfig.model_validate(pretrained).gated_tables if pretrained else ()


def find_checkpoint(store: Store, arm: str, through: date) -> CheckpointManifest | None:
    """The description of an arm's checkpoint after a day, or None."""
    return find_manifest(store.checkpoint(arm, through), CheckpointManifest)


def read_indexes(uri: str, checkpoint: CheckpointManifest) -> dict[str, RowIndex]:
    """Which row each of a checkpoint's exact ids has, by table.

    Raises:
        InputError: If the file is absent or damaged.
    """
    return indexes_of(read_vocabularies(checkpoint.features, partial(verified_bytes, uri, checkpoint)))


@dataclass(frozen=True)
class TrainedRanker:
    """A checkpoint's ranker, without what only training needs.

    Attributes:
        model: In evaluation mode.
        checkpoint: Where it is from.
        indexes: Of its exact ids, by table.
    """

    model: Ranker
    checkpoint: CheckpointManifest
    indexes: Mapping[str, RowIndex] = field(default_factory=dict)

    @classmethod
    def load(cls, store: Store, arm: str, through: date) -> TrainedRanker:
        """Load an arm's ranker after a day.

        Raises:
            InputError: If the checkpoint is absent, damaged, or does not fit its own recipe.
        """
        uri = store.checkpoint(arm, through)
        checkpoint = read_manifest(uri, CheckpointManifest)
        model = Ranker(checkpoint.features, checkpoint.model, gated=checkpoint.gated_tables)
        held = HeldRows.alone(len(model.embeddings.weight))
        load_weights(model, uri, partial(verified_bytes, uri, checkpoint), held)
        return cls(model.eval(), checkpoint, read_indexes(uri, checkpoint))

    @property
    def features(self) -> FeatureConfig:
        """Its feature list."""
        return self.checkpoint.features

    @property
    def lineage(self) -> Lineage:
        """Where its training comes from."""
        return self.checkpoint.lineage

    def predict(self, examples: ExampleSet, batch_size: int) -> np.ndarray:
        """Probabilities of un-sampled impressions, as they would be served; float32, shape (n, objectives)."""
        torch.set_num_threads(self.checkpoint.num_threads)
        return predict(self.model, self.lineage.negative_keep_rate, examples, batch_size)
