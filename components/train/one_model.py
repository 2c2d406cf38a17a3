"""Trains one model: on all batch days at once, or one more day from its latest checkpoint."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from datetime import date

import numpy as np
import torch

from components.common import storage
from components.common.arms import ArmCosts, arm_of
from components.common.digests import digest_json
from components.common.errors import InputError
from components.common.layout import LOSS_CURVE_FILE, TEST_CURVE_FILE, Store
from components.common.lineage import Lineage
from components.common.manifests import Origin, Step, find_current
from components.common.progress import log_line
from components.common.records import write_record
from components.features.examples import TRAINING, ExamplesManifest, check_made_alike, example_files
from components.features.feature_list import FeatureConfig
from components.features.objectives import OBJECTIVE_NAMES
from components.ranker.checkpoint import CheckpointManifest, find_checkpoint
from components.ranker.dataset import ExampleSet, concatenate
from components.ranker.pretrained import PretrainedManifest, find_pretrained, start_from
from components.ranker.vocabularies import count_ids
from components.tables import memory
from components.tables.processes import Process, joined_processes
from components.train.config import TrainConfig
from components.train.event_log import EventLog
from components.train.loader import ExampleStream, open_stream
from components.train.resume import ResumePoints
from components.train.single_stage import EngagementPairs, open_pairs
from components.train.training_run import Phase, TrainingRun
from components.train.training_state import TrainingState, load_state, new_state, write_checkpoint

STEP = Step("train")


def train_batch(store_uri: str, arm: str, features: FeatureConfig, config: TrainConfig, days: list[date]) -> str:
    """Train a new model of an arm, named by it or by one of its starts (`fal.1`), on shuffled days.

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
        inputs |= _of_vectors(stream, last)
        tables = _pretrained(store, arm, config, days[-1])
        if tables is not None:
            inputs["pretrained"] = tables.content_digest
        pairs = open_pairs(store, features, config, days[: len(days) - num_tested], process)
        if pairs is not None:
            inputs["edges"] = pairs.digest
        made = check_made_alike(manifests + more)
        lineage = Lineage(
            arm=arm,
            first_day=days[0],
            trained_through=days[-1],
            parent="",
            step=0,
            negative_keep_rate=made.negative_keep_rate,
            recipe_digest=_recipe_digest(features, config, made),
        )
        origin = _origin(inputs, features, config)
        done = _finished(store, arm, days[-1], origin)
        if done:
            return done
        torch.set_num_threads(config.num_threads)
        memory.reuse_buffers()
        state = new_state(features, config, lineage, process)
        if config.pretrained is not None and tables is not None:
            embeddings, held = state.model.embeddings, state.of_model.held
            started = start_from(embeddings, held, features, store, tables, config.pretrained)
            shown = ", ".join(f"{rows} of {features.tables[table]} rows of {table}" for table, rows in started.items())
            log_line("train", f"{arm}: starts from tables through {tables.through}: {shown}")
        _meet(store, state, TRAINING, days[: len(days) - num_tested], [stream, last])
        for day in days[len(days) - num_tested :] if state.vocabularies else ():
            # Its ids keep to the rows that the test had, and count for the days after it.
            state.note(day, _counted_ids(store, state, TRAINING, day))
        positives = torch.zeros(len(OBJECTIVE_NAMES))
        state.fit(_counted(stream.parts(), positives))
        _leave_out(state, positives)
        phases = [Phase(stream, config.epochs)]
        if more:
            phases = [Phase(stream, config.epochs, concatenate([*last.parts()])), Phase(last, 1)]
        return _train(store, state, phases, origin, pairs)


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
        InputError: If the parent is absent, or was trained by another recipe.
    """
    store = Store(store_uri)
    parent = find_checkpoint(store, arm, before)
    if parent is None:
        raise InputError(f"{store.checkpoint(arm, before)}: no checkpoint to start {day} from; train {before} first")
    with joined_processes(config.execution.device) as process:
        stream, manifests = _open(store, features, config, [day], process, split)
        inputs = {"examples": manifests[0].content_digest, "parent": parent.checkpoint_digest} | _of_vectors(stream)
        pairs = open_pairs(store, features, config, [day], process)
        if pairs is not None:
            inputs["edges"] = pairs.digest
        origin = _origin(inputs, features, config)
        done = _finished(store, arm, day, origin)
        if done:
            return done
        torch.set_num_threads(config.num_threads)
        memory.reuse_buffers()
        state, digest = load_state(store, arm, before, process, config.execution)
        _check_warm_start(state, features, config, manifests[0], store.checkpoint(arm, before))
        state.config = config
        state.lineage = Lineage(**{**state.lineage.model_dump(), "parent": digest, "trained_through": day})
        _meet(store, state, split, [day], [stream])
        return _train(store, state, [Phase(stream, 1)], origin, pairs)


def _open(
    store: Store,
    features: FeatureConfig,
    config: TrainConfig,
    days: list[date],
    process: Process,
    split: str = TRAINING,
) -> tuple[ExampleStream, list[ExamplesManifest]]:
    return open_stream(store, split, days, features, config.pool_rows, process.share)


def _of_vectors(*streams: ExampleStream) -> dict[str, str]:
    digests = [stream.vectors.digest for stream in streams if stream.vectors is not None]
    return {"vectors": digest_json(digests)} if digests else {}


def _meet(store: Store, state: TrainingState, split: str, days: list[date], streams: list[ExampleStream]) -> None:
    """Take in the ids of the days to train on, day by day, and read examples by the rows that these have then."""
    if not state.vocabularies:
        return
    for day in days:
        state.meet(day, _counted_ids(store, state, split, day))
    for stream in streams:
        stream.use(state.indexes)
    known = ", ".join(f"{own.num_known} of {table}" for table, own in state.vocabularies.items())
    log_line("train", f"{state.lineage.arm} {days[-1]}: rows that ids or ranges have to themselves: {known}")


def _counted_ids(store: Store, state: TrainingState, split: str, day: date) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    return count_ids(state.features, example_files(store, split, day), state.vocabularies)


def _counted(parts: Iterable[ExampleSet], positives: torch.Tensor) -> Iterator[ExampleSet]:
    """The parts; adds up their positives of each objective."""
    for part in parts:
        positives += (part.labels * part.masks).sum(dim=0)
        yield part


def _leave_out(state: TrainingState, positives: torch.Tensor) -> None:
    """Leave out the heads that could only learn that nothing ever happens."""
    left_out = tuple(name for name, count in zip(OBJECTIVE_NAMES, positives.tolist(), strict=True) if not count)
    state.lineage = Lineage(**{**state.lineage.model_dump(), "left_out": left_out})
    if left_out and state.lineage.arm:
        log_line("train", f"{state.lineage.arm}: the batch has no positive of {', '.join(left_out)}: left out")


def _origin(inputs: dict[str, str], features: FeatureConfig, config: TrainConfig) -> Origin:
    return STEP.origin(inputs, {"features": features.digest(), "recipe": digest_json(config.recipe())})


def _finished(store: Store, arm: str, through: date, origin: Origin) -> str | None:
    checkpoint = find_current(store.checkpoint(arm, through), CheckpointManifest, origin)
    if checkpoint is None:
        return None
    log_line("train", f"{arm} {through}: checkpoint is there, nothing to do")
    storage.remove(store.resume_points(arm, through))
    return checkpoint.checkpoint_digest


def _recipe_digest(features: FeatureConfig, config: TrainConfig, made: ExamplesManifest) -> str:
    return digest_json([features.model_dump(mode="json"), config.binding(), made.labelling_digest])


def _check_warm_start(
    state: TrainingState, features: FeatureConfig, config: TrainConfig, made: ExamplesManifest, uri: str
) -> None:
    if state.lineage.negative_keep_rate != made.negative_keep_rate:
        raise InputError(
            f"{uri}: trained at negative_keep_rate {state.lineage.negative_keep_rate}, the day's examples have "
            f"{made.negative_keep_rate}; join the day at the same rate, or train a new batch"
        )
    before, now = ({"features": f, **c.binding()} for f, c in ((state.features, state.config), (features, config)))
    changed = [name if name == "features" else f"train.{name}" for name in now if now[name] != before[name]]
    if changed:
        raise InputError(
            f"{uri}: trained under another {', '.join(changed)}; restore that configuration, or train a new batch"
        )
    if state.lineage.recipe_digest != _recipe_digest(features, config, made):
        raise InputError(
            f"{uri}: trained on examples that were labelled by other rules than the day's; join the day by the same "
            "ones, or train a new batch"
        )


def _pretrained(store: Store, arm: str, config: TrainConfig, last_day: date) -> PretrainedManifest | None:
    """The tables that the arm's batch starts from."""
    if config.pretrained is None or config.pretrained.mode == "single_stage":
        return None
    return find_pretrained(store, config.pretrained, f"arms.{arm_of(arm)}", last_day)


def _train(
    store: Store, state: TrainingState, phases: list[Phase], origin: Origin, pairs: EngagementPairs | None = None
) -> str:
    config, lineage, process = state.config, state.lineage, state.process
    points = ResumePoints(store, state, origin)
    shown = config.execution.tensorboard and process.is_first
    events = EventLog(store.tensorboard(lineage.arm, lineage.trained_through) if shown else None)
    run = TrainingRun(state, phases, points, events, pairs)
    run.run()
    state.lineage = Lineage(**{**lineage.model_dump(), "step": run.trainer.step})
    curves = {LOSS_CURVE_FILE: run.trainer.curve.points}
    if run.position.tests:
        curves[TEST_CURVE_FILE] = run.position.tests
    checkpoint = write_checkpoint(store, state, origin, curves, run.test_summary())
    points.clear()
    digest = process.agreed(checkpoint.checkpoint_digest if checkpoint else None)
    if not process.is_first:
        return digest
    num_examples = sum(len(phase.stream) for phase in phases)
    write_record(
        store.arm_costs(lineage.arm, lineage.trained_through),
        ArmCosts(
            seconds=round(run.trainer.seconds, 3), examples=sum(len(phase.stream) * phase.epochs for phase in phases)
        ),
    )
    waited = run.trainer.waited_seconds / max(run.trainer.seconds, 1e-9)
    log_line(
        "train",
        f"{lineage.arm} {lineage.trained_through}: {num_examples} examples, {phases[0].epochs} epochs, "
        f"{run.trainer.step} steps so far, first batch after {run.trainer.opening_seconds:.1f} s, then waited "
        f"for data {waited:.1%} of the time, checkpoint {digest[:12]}",
    )
    return digest
