"""Trains one arm: all batch days at once, or one more day from its latest checkpoint."""

from __future__ import annotations

from datetime import date
from typing import Any

import torch

from components.common import storage
from components.common.digests import digest_json
from components.common.errors import InputError
from components.common.events import DatasetConfig
from components.common.examples import EARLY, TRAINING
from components.common.features import FeatureConfig
from components.common.layout import CHECKPOINT_KIND, LOSS_CURVE_FILE, TEST_CURVE_FILE, Store
from components.common.manifests import Manifest, is_current
from components.common.progress import log_line
from components.train import memory
from components.train.checkpoint import (
    Lineage,
    TrainingState,
    checkpoint_digest,
    find_checkpoint,
    load_checkpoint,
    new_state,
    prune_checkpoints,
    write_checkpoint,
)
from components.train.config import TrainConfig
from components.train.dataset import concatenate, keep_rate
from components.train.event_log import EventLog
from components.train.loader import ExampleStream, open_stream
from components.train.processes import Process, joined_processes
from components.train.resume import ResumePoints
from components.train.training_run import Phase, TrainingRun


def train_batch(store_uri: str, arm: str, features: FeatureConfig, config: TrainConfig, days: list[date]) -> str:
    """Train a new model on shuffled days.

    With `config.test` the last day is held out while the others are trained on, and then trained on like a continual
    day: so the tests are of unseen next-day examples, and no day is left out.

    Returns:
        The checkpoint's digest; one that exists for the same examples and recipe is kept.
    """
    if config.test is not None and len(days) < 2:
        raise InputError(f"arms.{arm}.test: the batch has one day, {days[0]}; testing on the last takes two at least")
    store, num_tested = Store(store_uri), 1 if config.test is not None else 0
    with joined_processes(config.execution.device) as process:
        stream, manifests = _open(store, features, config, days[: len(days) - num_tested], process)
        inputs = {"examples": digest_json([manifest.content_digest for manifest in manifests])}
        last, more = _open(store, features, config, days[len(days) - num_tested :], process)
        if more:
            inputs["test_examples"] = more[0].content_digest
        lineage = Lineage(
            arm=arm,
            first_day=days[0],
            trained_through=days[-1],
            parent="",
            step=0,
            negative_keep_rate=keep_rate(manifests + more),
        )
        done = _finished(store, arm, days[-1], inputs, features, config)
        if done:
            return done
        torch.set_num_threads(config.num_threads)
        state = new_state(features, config, lineage)
        state.model.net.fit(stream.parts())
        phases = [Phase(stream, config.epochs)]
        if more:
            phases = [Phase(stream, config.epochs, concatenate([*last.parts()])), Phase(last, 1)]
        return _train(store, state, phases, inputs, process)


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
    with joined_processes(config.execution.device) as process:
        stream, manifests = _open(store, features, config, [day], process, split)
        inputs = {"examples": manifests[0].content_digest, "parent": checkpoint_digest(parent)}
        done = _finished(store, arm, day, inputs, features, config)
        if done:
            return done
        torch.set_num_threads(config.num_threads)
        state, digest = load_checkpoint(store, arm, before)
        _check_warm_start(state, features, config, keep_rate(manifests), store.checkpoint(arm, before))
        state.config = config
        state.lineage = Lineage(**{**state.lineage.model_dump(), "parent": digest, "trained_through": day})
        return _train(store, state, [Phase(stream, 1)], inputs, process)


def _open(
    store: Store,
    features: FeatureConfig,
    config: TrainConfig,
    days: list[date],
    process: Process,
    split: str = TRAINING,
) -> tuple[ExampleStream, list[Manifest]]:
    return open_stream(store, split, days, features, config.pool_rows, process.share)


def _settings(features: FeatureConfig, config: TrainConfig) -> dict[str, Any]:
    return {"features": features.model_dump(mode="json"), "train": config.recipe()}


def _finished(
    store: Store, arm: str, through: date, inputs: dict[str, str], features: FeatureConfig, config: TrainConfig
) -> str | None:
    if not is_current(store.checkpoint(arm, through), CHECKPOINT_KIND, inputs, _settings(features, config)):
        return None
    log_line("train", f"{arm} {through}: checkpoint is there, nothing to do")
    storage.remove(store.resume_points(arm, through))
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


def _train(store: Store, state: TrainingState, phases: list[Phase], inputs: dict[str, str], process: Process) -> str:
    config, lineage = state.config, state.lineage
    memory.reuse_buffers()
    state.spread(process)
    settings = _settings(state.features, config)
    points = ResumePoints(store, state, inputs, settings, process)
    shown = config.execution.tensorboard and process.is_first
    events = EventLog(store.tensorboard(lineage.arm, lineage.trained_through) if shown else None)
    run = TrainingRun(state, phases, points, events, process)
    run.run()
    state.lineage = Lineage(**{**lineage.model_dump(), "step": run.trainer.step})
    curves = {LOSS_CURVE_FILE: run.trainer.curve.points}
    if run.position.tests:
        curves[TEST_CURVE_FILE] = run.position.tests
    manifest = write_checkpoint(store, state, inputs, settings, curves, run.summary())
    points.clear()
    digest = process.agreed(checkpoint_digest(manifest) if manifest else None)
    if not process.is_first:
        return digest
    prune_checkpoints(store, lineage.arm, lineage.trained_through, config.execution.keep_days)
    num_examples = sum(len(phase.stream) for phase in phases)
    waited = run.trainer.waited_seconds / max(run.trainer.seconds, 1e-9)
    log_line(
        "train",
        f"{lineage.arm} {lineage.trained_through}: {num_examples} examples, {phases[0].epochs} epochs, "
        f"{run.trainer.step} steps so far, first batch after {run.trainer.opening_seconds:.1f} s, then waited "
        f"for data {waited:.1%} of the time, checkpoint {digest[:12]}",
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
    with joined_processes(config.execution.device):
        for day in map(date.fromisoformat, days):
            split = EARLY if str(day) in early_days else TRAINING
            digest = train_day(store_uri, arm, feature_list, config, day, contract.open_day(day, -1), split)
    return digest
