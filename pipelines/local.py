"""Runs the pipelines here, with kfp's local runner: one batch run, then one run per day, as the schedule would."""

from __future__ import annotations

import builtins
import contextlib
import os
import re
import uuid
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import date, timedelta
from pathlib import Path
from typing import Any
from unittest import mock

from fsspec.implementations.local import LocalFileSystem
from kfp.pipeline_spec.pipeline_spec_pb2 import PipelineSpec

from components.common import filesystems, storage
from components.common.arms import ArmList, changed_fields, check_recipes
from components.common.config import ResolvedConfig
from components.common.errors import InputError
from components.common.layout import Store
from components.common.lease import HELD_BY, held
from components.common.progress import ERROR_PREFIX, LINE_PREFIX, PROGRESS_PREFIX, STEP_PREFIX
from components.common.releases import BATCH, DAILY, PRETRAINING, read_blessing, read_publication
from components.common.runs import RunOutcome, read_outcome
from components.common.store_format import claim_format
from components.schedule.run import Assignment, known_until, pick_batch, pick_day
from pipelines.config import RunConfig
from pipelines.warm_steps import warm_steps

_ANSI = re.compile(r"\x1b\[[0-9;]*m")


class StepFailed(InputError):
    """A step of a local run failed."""


@dataclass
class RunEvents:
    """What the caller wants to hear while a pipeline runs."""

    on_step: Callable[[str], None] = lambda name: None
    on_line: Callable[[str], None] = lambda line: None
    on_progress: Callable[[str, int, int, str], None] = lambda name, done, total, note: None


@dataclass
class _LogSink:
    """A stdout for kfp: everything goes to the log file, the steps' own lines also to the caller."""

    log_path: Path
    events: RunEvents
    step: str = ""
    failure: str = ""
    encoding: str = "utf-8"
    _pending: str = field(default="", repr=False)

    def write(self, text: str) -> int:
        *lines, self._pending = (self._pending + text).split("\n")
        with self.log_path.open("a") as log:
            for line in lines:
                plain = _ANSI.sub("", line).rstrip()
                log.write(plain + "\n")
                self._tell(plain.lstrip())
        return len(text)

    def flush(self) -> None:
        pass

    def isatty(self) -> bool:
        return False

    def _tell(self, line: str) -> None:
        if line.startswith(LINE_PREFIX):
            self.events.on_line(line.removeprefix(LINE_PREFIX))
        elif line.startswith(PROGRESS_PREFIX):
            name, share, note = line.removeprefix(PROGRESS_PREFIX).split(" | ")
            done, total = share.split("/")
            self.events.on_progress(name, int(done), int(total), note)
        elif line.startswith(STEP_PREFIX):
            self.step = line.removeprefix(STEP_PREFIX)
            self.events.on_step(self.step)
        elif line.startswith(ERROR_PREFIX):
            # The first: kfp goes on with the steps that do not depend on the failed one.
            self.failure = self.failure or f"{self.step}: {line.removeprefix(ERROR_PREFIX)}"


def run_pipeline(
    pipeline: str, config: RunConfig, store_uri: str, as_of: date, events: RunEvents | None = None
) -> RunOutcome | None:
    """Run `batch` or `daily` training, or `pretraining`, once.

    Args:
        pipeline: Which.
        config: The deployment.
        store_uri: Where its files are.
        as_of: Knowledge cut-off.
        events: Hears what happens.

    Returns:
        What the run did; None if nothing was due, or it was pretraining.

    Raises:
        StepFailed: With the step's name, its error and the log file.
    """
    os.environ.setdefault("AFTERCLICK_PROGRESS_SECONDS", "0.5")
    os.environ.setdefault("TQDM_DISABLE", "1")
    workspace = workspace_of(store_uri)
    config_uri = config.write(Store(store_uri))
    before = set(Store(store_uri).finished_days(pipeline))
    sink = _LogSink(_log_path(workspace, pipeline, as_of), events or RunEvents())
    with _patched_kfp(), warnings.catch_warnings(), contextlib.redirect_stdout(sink), warm_steps():
        warnings.simplefilter("ignore")
        from kfp import local

        from pipelines.pretraining import pretraining
        from pipelines.training import batch_training, daily_training

        local.init(runner=local.SubprocessRunner(use_venv=False), pipeline_root=str(workspace / "kfp"))
        chosen = {
            BATCH: lambda: batch_training(arms=[*config.arms]),
            DAILY: lambda: daily_training(arms=[*config.arms]),
            PRETRAINING: pretraining,
        }[pipeline]()
        _without_retries(chosen.pipeline_spec)
        try:
            chosen(store_uri=store_uri, config_uri=config_uri, as_of=str(as_of))
        except RuntimeError as error:
            reason = sink.failure or f"{sink.step}: {_ANSI.sub('', str(error))}"
            raise StepFailed(f"{reason} (log: {sink.log_path})") from error
    finished = sorted(set(Store(store_uri).finished_days(pipeline)) - before)
    return read_outcome(Store(store_uri), pipeline, finished[-1]) if finished else None


def run_schedule(
    config: RunConfig,
    store_uri: str,
    as_of: date,
    max_days: int | None = None,
    on_run: Callable[[str, date], None] = lambda pipeline, event_date: None,
    events: RunEvents | None = None,
) -> Iterator[tuple[str, RunOutcome | None]]:
    """One batch run unless it is finished, then a daily run for each day that is due, each as of its own night.

    Args:
        config: The deployment.
        store_uri: Where its files are.
        as_of: Days whose labels are not final by then are left for later, as are days that the logs do not reach.
        max_days: At most this many days after the batch are ever run, counting those finished earlier.
        on_run: Hears which run begins.
        events: Hears what happens in it.

    Yields:
        Pipeline and outcome of every run.

    Raises:
        InputError: If another process runs this schedule on the same store, or its arms have another recipe by now.
    """
    store, events = Store(store_uri), events or RunEvents()
    as_of = known_until(config.source, config.dataset, as_of)
    with _exclusive(store_uri):
        claim_format(store)
        resolved = ResolvedConfig.open(config.write(store))
        if store.finished_days(BATCH):
            check_recipes(store, resolved)
            is_over = max_days is not None and len(store.finished_days(DAILY)) >= max_days
            if is_over or not _next_day(store, config, resolved, as_of).due:
                _judge_again(store, config, events)
        if not store.finished_days(BATCH):
            batch = pick_batch(store, config.dataset, config.schedule, as_of)
            scored = batch.event_date
            if _starts_pretrained(config):
                on_run(PRETRAINING, batch.trained_through)
                run_pipeline(PRETRAINING, config, store_uri, _night(config, as_of, scored), events)
            on_run(BATCH, scored)
            yield BATCH, run_pipeline(BATCH, config, store_uri, _night(config, as_of, scored), events)
        while max_days is None or len(store.finished_days(DAILY)) < max_days:
            due = _next_day(store, config, resolved, as_of)
            if not due.due:
                return
            on_run(DAILY, due.event_date)
            yield DAILY, run_pipeline(DAILY, config, store_uri, _night(config, as_of, due.event_date), events)


def _next_day(store: Store, config: RunConfig, resolved: ResolvedConfig, as_of: date) -> Assignment:
    return pick_day(store, config.dataset, config.schedule, as_of, ArmList.of(store, resolved))


def _starts_pretrained(config: RunConfig) -> bool:
    recipes = [arm.pretrained for arm in config.arms.values() if arm.pretrained is not None]
    return any(recipe.mode != "single_stage" for recipe in recipes)


def pretrain(config: RunConfig, store_uri: str, as_of: date, events: RunEvents | None = None) -> None:
    """Pretrain tables on the newest logs, unless those are there.

    Raises:
        InputError: If another process works on the same store, or a step fails.
    """
    known_on = known_until(config.source, config.dataset, as_of)
    with _exclusive(store_uri):
        run_pipeline(PRETRAINING, config, store_uri, known_on, events)


def _judge_again(store: Store, config: RunConfig, events: RunEvents) -> None:
    """Reopen the newest run if it published nothing by other thresholds than these."""
    pipeline = DAILY if store.finished_days(DAILY) else BATCH
    day = store.finished_days(pipeline)[-1]
    verdict = read_blessing(store, pipeline, day)
    if verdict is None or read_publication(store, pipeline, day) is not None:
        return
    changes = changed_fields("gate", verdict.thresholds, config.gate.model_dump(mode="json"))
    if changes and verdict.thresholds:
        events.on_line(f"{pipeline} {day}: judged again: {'; '.join(changes)}")
        storage.remove(store.finished_run(pipeline, day))


def workspace_of(store_uri: str) -> Path:
    """Where logs and kfp's own files of local runs go: in the store if it is local, else under `runs/`."""
    fs, path = filesystems.filesystem(store_uri)
    return Path(path) if isinstance(fs, LocalFileSystem) else Path("runs").absolute() / Path(path).name


def _night(config: RunConfig, as_of: date, event_date: date) -> date:
    return min(as_of, config.dataset.mature_on(event_date) + timedelta(days=1))


def _log_path(workspace: Path, pipeline: str, as_of: date) -> Path:
    folder = workspace / "run_logs"
    folder.mkdir(parents=True, exist_ok=True)
    return folder / f"{pipeline}-as-of-{as_of}.log"


def _without_retries(spec: PipelineSpec) -> None:
    """Here a step fails for a reason that stays; on a cluster it is run again."""
    dags = [spec.root.dag, *(component.dag for component in spec.components.values())]
    for dag in dags:
        for task in dag.tasks.values():
            task.ClearField("retry_policy")


@contextlib.contextmanager
def _exclusive(store_uri: str) -> Iterator[None]:
    """Hold the lease of a store, for the steps too."""
    with held(Store(store_uri), f"afterclick run {uuid.uuid4().hex[:8]}, process {os.getpid()}"):
        os.environ[HELD_BY] = str(os.getpid())
        try:
            yield
        finally:
            del os.environ[HELD_BY]


@contextlib.contextmanager
def _patched_kfp() -> Iterator[None]:
    """Kfp's local runner may leave `print` patched, and finds no named output of a task in a condition."""
    original = builtins.print
    resolve = "kfp.local.orchestrator.enhanced_dag_orchestrator.ConditionEvaluator._resolve_pipeline_channel"
    try:
        with mock.patch(resolve, _output_of):
            yield
    finally:
        builtins.print = original


def _output_of(channel: str, outputs: Any) -> Any:
    """The output that a name like `pipelinechannel--prepare-examples-due` stands for."""
    task, _, name = channel.removeprefix("pipelinechannel--").rpartition("-")
    return outputs.get_task_output(task, name)
