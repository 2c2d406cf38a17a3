"""Collects what the page shows from the store."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from datetime import date
from typing import Any

from components.common import storage
from components.common.events import TABLES, DatasetConfig
from components.common.examples import EARLY, EVALUATION, LABELS, TRAINING
from components.common.layout import (
    CLEAN_LOGS_KIND,
    EXAMPLE_STATISTICS_KIND,
    EXAMPLES_KIND,
    LOSS_CURVE_FILE,
    TEST_CURVE_FILE,
    VERSION_KIND,
    Store,
)
from components.common.ledger import ARMS, LedgerRow, read_ledger
from components.common.manifests import find_manifest
from components.common.release import (
    PRODUCTION_CHANNEL,
    Blessing,
    Pointer,
    Publication,
    read_blessing,
    read_pointer,
    read_publication,
)


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
        curves: Points of the loss curve by arm, oldest first; each with the `through` of its checkpoint.
        tests: Points of the test loss during the batch by arm, of arms that are tested.
        ledger: All records up to the day.
        blessing: The run's verdict.
        publication: What the run published, or None.
        pointer: What is in production.
        version: Details of the version in production.
        history: Verdicts of the daily runs so far.
    """

    dataset: str
    pipeline: str
    event_date: date
    volumes: list[DayVolume]
    curves: dict[str, list[dict[str, Any]]]
    tests: dict[str, list[dict[str, Any]]]
    ledger: list[LedgerRow]
    blessing: Blessing
    publication: Publication | None
    pointer: Pointer | None
    version: dict[str, Any] = field(default_factory=dict)
    history: list[Blessing] = field(default_factory=list)


def collect(store: Store, dataset: DatasetConfig, pipeline: str, event_date: date) -> ReportFacts:
    """Read the facts of one run."""
    blessing = read_blessing(store, pipeline, event_date)
    assert blessing is not None, "the gate runs before the report"
    pointer = read_pointer(store, PRODUCTION_CHANNEL)
    version = find_manifest(store.version(pointer.version), VERSION_KIND) if pointer else None
    verdicts = (read_blessing(store, "daily", day) for day in store.blessing_days("daily") if day <= event_date)
    return ReportFacts(
        dataset=dataset.name,
        pipeline=pipeline,
        event_date=event_date,
        volumes=[_volume(store, day) for day in store.clean_days() if day <= dataset.mature_on(event_date)],
        curves={arm: _curve(store, arm, event_date, LOSS_CURVE_FILE) for arm in ARMS},
        tests={arm: points for arm in ARMS if (points := _curve(store, arm, event_date, TEST_CURVE_FILE))},
        ledger=read_ledger(store, through=event_date),
        blessing=blessing,
        publication=read_publication(store, pipeline, event_date),
        pointer=pointer,
        version=version.details if version else {},
        history=[verdict for verdict in verdicts if verdict is not None],
    )


def _volume(store: Store, day: date) -> DayVolume:
    clean = {table: find_manifest(store.clean_logs(table, day), CLEAN_LOGS_KIND) for table in TABLES}
    quarantined: dict[str, int] = {}
    for table, manifest in clean.items():
        for name, count in (manifest.counts if manifest else {}).items():
            if name.startswith("quarantined_"):
                quarantined[f"{table}: {name.removeprefix('quarantined_')}"] = count
    rows = {table: manifest.counts["rows"] if manifest else 0 for table, manifest in clean.items()}
    evaluation = find_manifest(store.examples(EVALUATION, day), EXAMPLES_KIND)
    examples = evaluation or find_manifest(store.examples(TRAINING, day), EXAMPLES_KIND)
    counts = examples.counts if examples else {}
    # Positives are never sampled out, so a density over all impressions can be had from training examples too.
    labels = {name: count / max(rows["impressions"], 1) for name, count in counts.items() if name != "rows"}
    early = find_manifest(store.examples(EARLY, day), EXAMPLES_KIND)
    final = find_manifest(store.examples(TRAINING, day), EXAMPLES_KIND)
    moved = {name: (early.counts[name], final.counts[name]) for name in LABELS} if early and final else {}
    statistics = find_manifest(store.example_statistics(day), EXAMPLE_STATISTICS_KIND)
    return DayVolume(
        day=day,
        impressions=rows["impressions"],
        actions=rows["actions"],
        quarantined=quarantined,
        examples=counts.get("rows"),
        labels=labels,
        warnings=statistics.details["warnings"] if statistics else [],
        moved=moved,
    )


def _curve(store: Store, arm: str, event_date: date, file: str) -> list[dict[str, Any]]:
    points: list[dict[str, Any]] = []
    for through in store.checkpoint_days(arm):
        uri = storage.join_uri(store.checkpoint(arm, through), file)
        if through <= event_date and storage.exists(uri):
            points += [{**point, "through": str(through)} for point in json.loads(storage.read_bytes(uri))]
    return points
