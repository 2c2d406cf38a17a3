"""Collects what the page shows from the store."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from datetime import date, timedelta
from functools import partial
from typing import Any

from components.common import storage
from components.common.arms import arm_of, find_costs, ordered
from components.common.layout import LOSS_CURVE_FILE, TEST_CURVE_FILE, Store
from components.common.ledger import LedgerRow, read_ledger
from components.common.manifests import find_manifest, read_manifest
from components.common.releases import (
    PRODUCTION_CHANNEL,
    Blessing,
    Pointer,
    Publication,
    days_withheld,
    read_blessing,
    read_pointer,
    read_publication,
)
from components.common.rollouts import RolloutOutcome, read_rollout
from components.common.trials import Trial, read_trials
from components.features.events import ACTIONS, IMPRESSIONS, LOG_NAMES, DatasetConfig
from components.features.examples import (
    EARLY,
    EVALUATION,
    LABELS,
    TRAINING,
    ExamplesManifest,
    ExampleStatisticsManifest,
)
from components.features.log_manifests import CleanLogManifest
from components.report.kept_facts import KeptFacts
from components.version.manifest import VersionManifest


@dataclass(frozen=True)
class DayVolume:
    """One day of data.

    Attributes:
        day: The day.
        impressions: Clean rows.
        actions: Clean rows.
        quarantined: Rows by reason.
        examples: Rows, if there are any.
        labels: Share of impressions with a positive label, by label.
        warnings: What validation says of the examples.
        moved: Positives by label when the day was trained on early, and in the end.
    """

    day: date
    impressions: int
    actions: int
    quarantined: dict[str, int]
    examples: int | None
    labels: dict[str, float]
    warnings: list[str]
    moved: dict[str, tuple[int, int]]


@dataclass(frozen=True)
class ReportFacts:
    """Everything on the page.

    Attributes:
        dataset: The data set's name.
        pipeline: Whose run: `batch` or `daily`.
        event_date: The run's day.
        volumes: By day, oldest first.
        arms: The arms that were trained, the one in production first.
        curves: Points of the loss curve by model, oldest first; each with the `through` of its checkpoint.
        tests: Points of the test loss during the batch by model, of those that are tested.
        ledger: All records up to the day.
        blessing: The run's verdict.
        publication: What the run published, or None.
        pointer: What is in production.
        version: The version in production, or None.
        trials: Those that began by the day, in order of their first days, with their verdicts until it.
        seconds: What training took by arm, all of its starts: for the newest checkpoint, and for all of the page's.
        days_withheld: Daily runs in a row that withheld a version.
        rollout: How the run's rollout ended, or None.
    """

    dataset: str
    pipeline: str
    event_date: date
    volumes: list[DayVolume]
    arms: list[str]
    curves: dict[str, list[dict[str, Any]]]
    tests: dict[str, list[dict[str, Any]]]
    ledger: list[LedgerRow]
    blessing: Blessing
    publication: Publication | None
    pointer: Pointer | None
    version: VersionManifest | None = None
    trials: list[Trial] = field(default_factory=list)
    seconds: dict[str, tuple[float, float]] = field(default_factory=dict)
    days_withheld: int = 0
    rollout: RolloutOutcome | None = None


def collect(
    store: Store, dataset: DatasetConfig, pipeline: str, event_date: date, num_days: int | None = None
) -> ReportFacts:
    """Read the facts of one run and of the days before it, of the newest `num_days` if that is given.

    Raises:
        InputError: If the version that the pointer names is not there.
    """
    blessing = read_blessing(store, pipeline, event_date)
    assert blessing is not None, "the gate runs before the report"
    pointer = read_pointer(store, PRODUCTION_CHANNEL)
    version = read_manifest(store.version(pointer.version), VersionManifest) if pointer else None
    since = event_date - timedelta(days=num_days - 1) if num_days else date.min
    began = [trial for trial in read_trials(store) if trial.first_day <= event_date]
    kept = KeptFacts(store)
    models = ordered(store.trained_models(), [blessing.production, *store.arms()])
    curves = _curves(store, models, (since, event_date), kept)
    facts = ReportFacts(
        dataset=dataset.name,
        pipeline=pipeline,
        event_date=event_date,
        volumes=_volumes(store, (since, dataset.mature_on(event_date)), kept),
        arms=list(dict.fromkeys(map(arm_of, models))),
        curves={model: points for model in models if (points := curves[model, LOSS_CURVE_FILE])},
        tests={model: points for model in models if (points := curves[model, TEST_CURVE_FILE])},
        ledger=read_ledger(store, through=event_date, since=since),
        blessing=blessing,
        publication=read_publication(store, pipeline, event_date),
        pointer=pointer,
        version=version,
        trials=[trial.before(event_date + timedelta(days=1)) for trial in began],
        seconds=_seconds(store, models, since, kept),
        days_withheld=days_withheld(store, event_date),
        rollout=read_rollout(store, pipeline, event_date),
    )
    kept.write()
    return facts


def _volumes(store: Store, days: tuple[date, date], kept: KeptFacts) -> list[DayVolume]:
    """Of the days of a span that have clean logs."""
    states: dict[str, str] = {}
    for folder in ("clean_logs", "examples", "example_statistics"):
        states |= storage.manifest_states(storage.join_uri(store.root, folder))
    volumes = []
    for day in store.clean_days():
        if days[0] <= day <= days[1]:
            uris = {split: store.examples(split, day) for split in (EARLY, TRAINING, EVALUATION)}
            read = [*(store.clean_logs(name, day) for name in LOG_NAMES), store.example_statistics(day), *uris.values()]
            there = [split for split, uri in uris.items() if uri in states]
            make = partial(_volume, store, day, there)
            values = kept.find(f"volume {day}", [states.get(uri) for uri in read], make)
            volumes.append(DayVolume(day=day, **values))
    return volumes


def _volume(store: Store, day: date, splits: list[str]) -> dict[str, Any]:
    """The fields of a day's volume, but for the day."""
    clean = {name: find_manifest(store.clean_logs(name, day), CleanLogManifest) for name in LOG_NAMES}
    rows = {name: manifest.rows if manifest else 0 for name, manifest in clean.items()}
    quarantined = {
        f"{name}: {reason}": count
        for name, manifest in clean.items()
        for reason, count in (manifest.quarantined if manifest else {}).items()
    }
    early, final, evaluation = (
        find_manifest(store.examples(split, day), ExamplesManifest) if split in splits else None
        for split in (EARLY, TRAINING, EVALUATION)
    )
    examples = evaluation or final
    positives = examples.positives if examples else {}
    statistics = find_manifest(store.example_statistics(day), ExampleStatisticsManifest) if splits else None
    return dict(
        impressions=rows[IMPRESSIONS],
        actions=rows[ACTIONS],
        quarantined=quarantined,
        examples=examples.rows if examples else None,
        # Positives are never sampled out, so a density over all impressions can be had from training examples too.
        labels={name: count / max(rows[IMPRESSIONS], 1) for name, count in positives.items()},
        warnings=list(statistics.warnings) if statistics else [],
        moved={name: (early.positives[name], final.positives[name]) for name in LABELS} if early and final else {},
    )


def _seconds(store: Store, models: list[str], since: date, kept: KeptFacts) -> dict[str, tuple[float, float]]:
    """Seconds of training by arm: of the newest day, and of all days since one."""
    seconds: dict[str, tuple[float, float]] = {}
    for model in models:
        days = [day for day in store.arm_cost_days(model) if day >= since]
        # Of a day that was trained anew, what the page first saw is kept: it is a cost, not a result.
        spent = [
            kept.find(f"seconds {model} {day}", [str(day)], partial(_seconds_of, store, model, day)) for day in days
        ]
        newest, total = seconds.get(arm_of(model), (0.0, 0.0))
        seconds[arm_of(model)] = (newest + (spent[-1] if spent else 0.0), total + sum(spent))
    return seconds


def _seconds_of(store: Store, model: str, day: date) -> float:
    costs = find_costs(store, model, day)
    return costs.seconds if costs else 0.0


def _curves(
    store: Store, models: list[str], days: tuple[date, date], kept: KeptFacts
) -> dict[tuple[str, str], list[dict[str, Any]]]:
    """Points of the curves beside the checkpoints of a span of days, by model and file."""
    points: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for arm in models:
        states = storage.manifest_states(storage.join_uri(store.root, "checkpoints", arm))
        through = [day for day in store.checkpoint_days(arm) if days[0] <= day <= days[1]]
        for file in (LOSS_CURVE_FILE, TEST_CURVE_FILE):
            points[arm, file] = []
            for day in through:
                uri = store.checkpoint(arm, day)
                read = partial(_read_points, storage.join_uri(uri, file), str(day))
                points[arm, file] += kept.find(f"{arm} {file} {day}", [states.get(uri)], read)
    return points


def _read_points(uri: str, through: str) -> list[dict[str, Any]]:
    return [{**point, "through": through} for point in json.loads(storage.find_bytes(uri) or b"[]")]
