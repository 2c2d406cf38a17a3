"""Joins some days of clean logs into examples; days that are there and unchanged are left alone."""

from __future__ import annotations

import math
import tempfile
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import date, timedelta
from typing import Any

import apache_beam as beam
import pyarrow as pa
from apache_beam.runners.runner import PipelineState

from components.common import storage
from components.common.beam import LOCAL_RUNNER, open_pipeline
from components.common.config import ResolvedConfig
from components.common.digests import digest_json
from components.common.errors import InputError, TransientError
from components.common.filesystems import is_local
from components.common.layout import Store
from components.common.manifests import Step, find_current, find_manifest, read_manifest
from components.common.progress import log_line
from components.features.events import ACTIONS, IMPRESSIONS, LOG_NAMES, DatasetConfig
from components.features.examples import EARLY, ExamplesManifest
from components.features.feature_list import FeatureConfig
from components.features.log_manifests import CleanLogManifest
from components.join.assemble import JoinJob
from components.join.attribution import UNATTRIBUTED_REASONS
from components.join.beam_join import METRICS_NAMESPACE, JoinExamples, SplitFiles, SummariseMissingDays
from components.join.config import JoinConfig
from components.join.plan import HISTORY, DayOutput, JoinPlan, LogFile
from components.join.summaries import ACTIONS_FILE, CleanLogs, Reading, SummaryManifest

STEP = Step("join", 2)


def join_days(store_uri: str, job: JoinJob) -> dict[str, int]:
    """Make the examples of `job.first_day`..`job.last_day`.

    Args:
        store_uri: Where clean logs are and examples go.
        job: What to make.

    Returns:
        Counts of the days that were made by this call; empty when there was nothing to do.

    Raises:
        InputError: If a label could still change after `as_of`, or clean logs are missing.
    """
    if job.training_split != EARLY and job.as_of <= job.dataset.mature_on(job.last_day):
        raise InputError(
            f"as_of = {job.as_of}: labels of {job.last_day} are final from "
            f"{job.dataset.mature_on(job.last_day) + timedelta(days=1)} on; join it then"
        )
    store = Store(store_uri)
    # This also deletes what a killed run left.
    scratch_uri = _new_scratch(store)
    clean = _clean_manifests(store, job)
    days = job.dataset.open_days(job.first_day, job.last_day)
    outputs = {day: _day_output(job, clean, day) for day in days}
    missing = [day for day in days if not _is_done(store, job, day, outputs[day])]
    if not missing:
        log_line("join", f"{job.first_day}..{job.last_day}: examples are there, nothing to do")
        return {}
    first, last = missing[0], missing[-1]
    job, labelled = replace(job, first_day=first, last_day=last), job.dataset.days_read(first, last, 0)
    with _scratch(store, job.config, scratch_uri) as scratch_uri:
        counts = _run_pipeline(_plan(store, job, clean, outputs, labelled, scratch_uri), clean)
    lost = [str(day) for day in days if not _is_done(store, job, day, outputs[day])]
    if lost:
        raise RuntimeError(f"join: the Beam runner returned without writing {lost}; use another runner")
    if not counts:
        log_line("join", f"{first}..{last}: written; this Beam runner reports no counters")
        return {}
    for name in LOG_NAMES:
        counts[f"{name}_quarantined"] = sum(
            clean[day][name].num_quarantined for day in job.dataset.open_days(first, last)
        )
    log_line("join", f"{first}..{last}: {_reconciled(counts)}")
    return counts


def summarise_days(store_uri: str, job: JoinJob) -> dict[date, SummaryManifest]:
    """Summarise the log days that features of `job.first_day` reach back to, except those that are summarised.

    Returns:
        Their summaries.

    Raises:
        InputError: If clean logs are missing.
    """
    assert job.features is not None
    store = Store(store_uri)
    scratch_uri = _new_scratch(store)
    clean = _clean_manifests(store, job)
    with _scratch(store, job.config, scratch_uri) as scratch_uri:
        plan = _plan(store, job, clean, {}, [], scratch_uri)
        if plan.reading.missing:
            pipeline = open_pipeline(job.config.beam_options)
            shards = pipeline | beam.Create(_files(plan, clean)) | SplitFiles(plan)
            _ = shards | SummariseMissingDays(plan) | beam.Map(lambda day: log_line("join", f"{day}: summarised"))
            _finish(pipeline)
    since = job.first_day - timedelta(days=job.features.history_days)
    return {day: read_manifest(store.log_summary(day), SummaryManifest) for day in clean if day >= since}


def _new_scratch(store: Store) -> str:
    """A new name for intermediate files; what killed runs left behind is deleted."""
    for left_over in storage.list_names(store.scratch("")):
        if left_over.startswith(f"{STEP.name}-"):
            storage.remove(store.scratch(left_over))
    return store.scratch(f"{STEP.name}-{uuid.uuid4().hex[:8]}")


@contextmanager
def _scratch(store: Store, config: JoinConfig, scratch_uri: str) -> Iterator[str]:
    """A folder for files between the stages: in the store, which all workers reach, or here, if they all are."""
    if LOCAL_RUNNER[0] in config.beam_options and not is_local(store.root):
        with tempfile.TemporaryDirectory() as folder:
            yield folder
        return
    yield scratch_uri
    storage.remove(scratch_uri)


def _reconciled(counts: dict[str, int]) -> str:
    """Where every delivered row went.

    Raises:
        RuntimeError: If the parts do not add up.
    """
    texts = []
    for name, parts in (
        (IMPRESSIONS, ("kept", "sampled_out", "duplicate", "quarantined")),
        (ACTIONS, ("attributed", "unattributed", "duplicate", "quarantined")),
    ):
        total = counts[name] + counts[f"{name}_quarantined"]
        if total != sum(counts[f"{name}_{part}"] for part in parts):
            raise RuntimeError(f"join: {name} do not reconcile: {counts}; use another Beam runner")
        listed = " + ".join(f"{counts[f'{name}_{part}']} {part.replace('_', ' ')}" for part in parts)
        texts.append(f"{total} {name} = {listed}")
    why = {reason: counts.get(f"unattributed_{reason}", 0) for reason in UNATTRIBUTED_REASONS}
    shown = ", ".join(f"{count} {reason.replace('_', ' ')}" for reason, count in why.items() if count)
    return ", ".join(texts) + (f"; unattributed: {shown}" if shown else "")


def _clean_manifests(store: Store, job: JoinJob) -> CleanLogs:
    days = job.dataset.days_read(job.first_day, job.last_day, job.history_days)
    clean: CleanLogs = {}
    for day in days:
        if day < job.as_of:
            find = find_manifest if day in job.dataset.closed_days else read_manifest
            found = {name: find(store.clean_logs(name, day), CleanLogManifest) for name in LOG_NAMES}
            clean[day] = {name: manifest for name, manifest in found.items() if manifest is not None}
    return clean


def _day_output(job: JoinJob, clean: CleanLogs, day: date) -> DayOutput:
    read = [read_day for read_day in job.dataset.days_read(day, day, job.history_days) if read_day < job.as_of]
    digests = [[name, str(d), manifest.content_digest] for d in read for name, manifest in clean[d].items()]
    num_impressions, num_actions = (clean[day][name].rows for name in (IMPRESSIONS, ACTIONS))
    settings = {
        "dataset": job.dataset.model_dump(mode="json"),
        "features": job.features.model_dump(mode="json") if job.features else None,
        "sampling": job.config.model_dump(mode="json", include={"negative_keep_rate", "salt", "rows_per_file"}),
    }
    num_files = max(1, math.ceil(num_impressions / job.config.rows_per_file))
    origin = STEP.origin({"clean_logs": digest_json(digests)}, settings)
    return DayOutput(origin, num_impressions, num_actions, num_files)


def _is_done(store: Store, job: JoinJob, day: date, output: DayOutput) -> bool:
    return all(find_current(store.examples(split, day), ExamplesManifest, output.origin) for split in job.splits(day))


def _identifiers(manifests: dict[tuple[str, date], CleanLogManifest]) -> dict[str, dict[str, pa.DataType]]:
    """The types of each log's identifiers; days without any value of a column say nothing of it."""
    types: dict[str, dict[str, pa.DataType]] = {name: {} for name in LOG_NAMES}
    for (name, _), manifest in manifests.items():
        types[name] |= manifest.identifier_types
    return types


def _plan(
    store: Store,
    job: JoinJob,
    clean: CleanLogs,
    outputs: dict[date, DayOutput],
    labelled: list[date],
    scratch_uri: str,
) -> JoinPlan:
    manifests = {(name, day): manifest for day, of_day in clean.items() for name, manifest in of_day.items()}
    types = _identifiers(manifests)
    reading = Reading.of(store, job.features, labelled, job.first_day, job.last_day, clean, types)
    read = {(name, day): manifest for (name, day), manifest in manifests.items() if day in reading.logs}
    rows = {name: sum(m.rows for (log_name, _), m in read.items() if log_name == name) for name in LOG_NAMES}
    rows[HISTORY] = sum(manifest.actions for manifest in reading.history.values())
    return JoinPlan(
        job=job,
        store_root=store.root,
        scratch_uri=scratch_uri,
        outputs={day: outputs[day] for day in job.dataset.open_days(job.first_day, job.last_day) if day in outputs},
        expected=(rows[IMPRESSIONS], rows[ACTIONS], rows[HISTORY]),
        num_shards=max(1, math.ceil(sum(rows.values()) / job.config.rows_per_shard)),
        identifiers=types,
        reading=reading,
    )


def _files(plan: JoinPlan, clean: CleanLogs) -> list[LogFile]:
    """The logs that a plan reads."""
    store = Store(plan.store_root)
    return [
        LogFile(name, store.clean_logs(name, day), entry)
        for day in plan.reading.logs
        for name, manifest in clean[day].items()
        for entry in manifest.files
    ]


def _run_pipeline(plan: JoinPlan, clean: CleanLogs) -> dict[str, int]:
    store, job = Store(plan.store_root), plan.job
    files = _files(plan, clean) + [
        LogFile(HISTORY, store.log_summary(day), manifest.entry(ACTIONS_FILE))
        for day, manifest in plan.reading.history.items()
    ]
    for day in plan.outputs:
        for split in job.splits(day):
            storage.remove(store.examples(split, day))
    pipeline = open_pipeline(job.config.beam_options)
    done = pipeline | beam.Create(files) | JoinExamples(plan)
    _ = done | beam.Map(lambda day: log_line("join", f"{day}: examples written"))
    result = _finish(pipeline)
    counters = result.metrics().query(beam.metrics.MetricsFilter().with_namespace(METRICS_NAMESPACE))["counters"]
    # Runners fill in one of the two; `result` would turn a committed 0 into None.
    values = {c.key.metric.name: c.attempted if c.committed is None else c.committed for c in counters}
    return {name: int(values[name]) for name in sorted(values)}


def _finish(pipeline: beam.Pipeline) -> Any:
    """Run a pipeline to its end; returns Beam's result.

    Raises:
        TransientError: If it does not get there.
    """
    result = pipeline.run()
    state = result.wait_until_finish()
    if state != PipelineState.DONE:
        raise TransientError(f"join: the Beam runner ended in state {state}; see its own log")
    return result


def join_early(store_uri: str, job: JoinJob, days: list[date]) -> None:
    """Make training examples of days as they stand when each of them ends, before their labels are final."""
    for day in days:
        known = day + timedelta(days=1)
        join_days(
            store_uri,
            replace(job, first_day=day, last_day=day, as_of=known, evaluate_from=known, training_split=EARLY),
        )


def main(
    store_uri: str, config_uri: str, days: tuple[str, str], as_of: str, evaluate_from: str, early_days: list[str]
) -> dict[str, int]:
    """`join_days` under a run's configuration, where `days` is the first and the last; and `join_early`."""
    config = ResolvedConfig.open(config_uri)
    first, last, known_on, evaluated = map(date.fromisoformat, (*days, as_of, evaluate_from))
    job = JoinJob(
        dataset=config.section(DatasetConfig, "dataset"),
        features=config.section(FeatureConfig, "features"),
        config=config.section(JoinConfig, "join"),
        first_day=first,
        last_day=last,
        as_of=known_on,
        evaluate_from=evaluated,
    )
    counts = join_days(store_uri, job)
    join_early(store_uri, job, [date.fromisoformat(day) for day in early_days])
    return counts
