"""Trains one arm: all batch days at once, or one more day from its latest checkpoint."""

from __future__ import annotations

from datetime import date
from typing import Any

import pyarrow as pa
import torch

from components.common.digests import digest_json
from components.common.errors import InputError
from components.common.events import DatasetConfig
from components.common.examples import EARLY, TRAINING, read_examples
from components.common.features import FeatureConfig
from components.common.layout import CHECKPOINT_KIND, Store
from components.common.manifests import Manifest, is_current
from components.common.progress import log_line
from components.train.checkpoint import (
    Lineage,
    TrainingState,
    checkpoint_digest,
    find_checkpoint,
    load_checkpoint,
    new_state,
    write_checkpoint,
)
from components.train.config import TrainConfig
from components.train.dataset import ExampleSet, keep_rate, tensors_of
from components.train.trainer import Trainer


def train_batch(store_uri: str, arm: str, features: FeatureConfig, config: TrainConfig, days: list[date]) -> str:
    """Train a new model on shuffled days.

    Returns:
        The checkpoint's digest; one that exists for the same examples and recipe is kept.
    """
    store = Store(store_uri)
    examples, manifests = _read_days(store, features, days)
    inputs = {"examples": digest_json([manifest.content_digest for manifest in manifests])}
    done = _finished(store, arm, days[-1], inputs, features, config)
    if done:
        return done
    lineage = Lineage(
        arm=arm,
        first_day=days[0],
        trained_through=days[-1],
        parent="",
        step=0,
        negative_keep_rate=keep_rate(manifests),
    )
    torch.set_num_threads(config.num_threads)
    state = new_state(features, config, lineage)
    state.model.net.normalize.fit(examples.dense)
    state.model.net.heads.start_at((examples.labels * examples.masks).sum(0) / examples.masks.sum(0).clamp(min=1))
    return _train(store, state, examples, config.epochs, inputs)


def train_day(
    store_uri: str,
    arm: str,
    features: FeatureConfig,
    config: TrainConfig,
    day: date,
    before: date,
    split: str = TRAINING,
) -> str:
    """Train one more day, from the arm's checkpoint through `before`, on the day's examples of a split.

    Returns:
        The checkpoint's digest; one that exists for the same parent, examples and recipe is kept.

    Raises:
        InputError: If the parent is absent, or was trained under another feature list, model or `negative_keep_rate`.
    """
    store = Store(store_uri)
    parent = find_checkpoint(store, arm, before)
    if parent is None:
        raise InputError(f"{store.checkpoint(arm, before)}: no checkpoint to start {day} from; train {before} first")
    examples, manifests = _read_days(store, features, [day], split)
    inputs = {"examples": manifests[0].content_digest, "parent": checkpoint_digest(parent)}
    done = _finished(store, arm, day, inputs, features, config)
    if done:
        return done
    torch.set_num_threads(config.num_threads)
    state, digest = load_checkpoint(store, arm, before)
    _check_warm_start(state, features, config, keep_rate(manifests), store.checkpoint(arm, before))
    state.config = config
    state.lineage = Lineage(**{**state.lineage.model_dump(), "parent": digest, "trained_through": day})
    return _train(store, state, examples, 1, inputs)


def _read_days(
    store: Store, features: FeatureConfig, days: list[date], split: str = TRAINING
) -> tuple[ExampleSet, list[Manifest]]:
    read = [read_examples(store, split, day) for day in days]
    return tensors_of(pa.concat_tables([table for table, _ in read]), features, unsampled=False), [m for _, m in read]


def _settings(features: FeatureConfig, config: TrainConfig) -> dict[str, Any]:
    return {"features": features.model_dump(mode="json"), "train": config.model_dump(mode="json")}


def _finished(
    store: Store, arm: str, through: date, inputs: dict[str, str], features: FeatureConfig, config: TrainConfig
) -> str | None:
    if not is_current(store.checkpoint(arm, through), CHECKPOINT_KIND, inputs, _settings(features, config)):
        return None
    log_line("train", f"{arm} {through}: checkpoint is there, nothing to do")
    manifest = find_checkpoint(store, arm, through)
    assert manifest is not None
    return checkpoint_digest(manifest)


def _check_warm_start(
    state: TrainingState, features: FeatureConfig, config: TrainConfig, rate: float, uri: str
) -> None:
    if state.lineage.negative_keep_rate != rate:
        raise InputError(
            f"{uri}: trained at negative_keep_rate {state.lineage.negative_keep_rate}, the day's examples have {rate}; "
            "join the day at the same rate, or train a new batch"
        )
    for name, trained, wanted in (
        ("features", state.features, features),
        ("train.model", state.config.model, config.model),
        ("train.optimizer", state.config.optimizer, config.optimizer),
    ):
        if trained != wanted:
            raise InputError(f"{uri}: trained under another {name}; restore that configuration, or train a new batch")


def _train(store: Store, state: TrainingState, examples: ExampleSet, epochs: int, inputs: dict[str, str]) -> str:
    config, lineage = state.config, state.lineage
    trainer = Trainer(state.model, state.optimizer, config, f"train {lineage.arm}", lineage.step)
    num_batches = -(-len(examples) // config.batch_size)
    adaptive = config.optimizer.frequency_adaptive
    if adaptive is not None and adaptive.counts == "precomputed":
        trainer.count_rows(examples.in_order(config.batch_size))
    for epoch in range(epochs):
        seed = config.seed * 1_000_003 + trainer.step
        trainer.train_epoch(examples.shuffled(config.batch_size, seed), num_batches, epoch)
    state.lineage = Lineage(**{**lineage.model_dump(), "step": trainer.step})
    settings = _settings(state.features, config)
    digest = checkpoint_digest(write_checkpoint(store, state, inputs, settings, trainer.curve.points))
    log_line(
        "train",
        f"{lineage.arm} {lineage.trained_through}: {len(examples)} examples, {epochs} epochs, {trainer.step} steps "
        f"so far, checkpoint {digest[:12]}",
    )
    return digest


def main_batch(
    store_uri: str,
    arm: str,
    dataset: dict[str, Any],
    features: dict[str, Any],
    train: dict[str, Any],
    days: tuple[str, str],
) -> str:
    """`train_batch` from plain values; `days` is the first and the last."""
    first, last = (date.fromisoformat(day) for day in days)
    contract = DatasetConfig.parse(dataset, "dataset")
    feature_list, config = FeatureConfig.parse(features, "features"), TrainConfig.parse(train, f"arms.{arm}")
    return train_batch(store_uri, arm, feature_list, config, contract.open_days(first, last))


def main_days(
    store_uri: str,
    arm: str,
    dataset: dict[str, Any],
    features: dict[str, Any],
    train: dict[str, Any],
    days: list[str],
    early_days: list[str],
) -> str:
    """`train_day` from plain values, day after day; on `early_days` with the labels that were known when they ended."""
    contract = DatasetConfig.parse(dataset, "dataset")
    feature_list, config = FeatureConfig.parse(features, "features"), TrainConfig.parse(train, f"arms.{arm}")
    digest = ""
    for day in map(date.fromisoformat, days):
        split = EARLY if str(day) in early_days else TRAINING
        digest = train_day(store_uri, arm, feature_list, config, day, contract.open_day(day, -1), split)
    return digest
