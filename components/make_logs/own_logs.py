"""Brings a company's own logs into the store, day by day, in the contract's terms."""

from __future__ import annotations

import posixpath
from collections import Counter
from collections.abc import Mapping
from datetime import date, timedelta

from components.common import storage
from components.common.errors import InputError
from components.common.layout import Store
from components.common.manifests import Origin, Step, find_current, write_artifact
from components.common.progress import log_line
from components.features.events import IMPRESSIONS, LOG_NAMES, DatasetConfig
from components.features.log_manifests import LOG_FILE, DeliveredLogManifest
from components.sources.config import OwnLogs, SqlSource
from components.sources.day_rows import DayRows
from components.sources.log_days import OwnLog
from components.sources.log_files import beside_folders

STEP = Step("make_logs", 2)


def copy_logs(store: Store, dataset: DatasetConfig, source: OwnLogs, days: list[date]) -> dict[str, int]:
    """Copy the days that are new or were delivered again; returns the rows that were written, by log.

    Raises:
        InputError: If a day is absent, or a log cannot be read.
    """
    written = {}
    for name in LOG_NAMES:
        log = OwnLog(source, name, dataset)
        copied = _copy_folders if log.has_folders else _copy_at_once
        made = copied(store, log, source, days)
        written[name] = sum(manifest.rows for manifest in made)
        left_out: Counter[str] = Counter()
        for manifest in made:
            left_out.update(manifest.left_out)
        if left_out:
            listed = ", ".join(f"{count} {reason}" for reason, count in left_out.most_common(10))
            log_line("make_logs", f"{name}: left out as configured: {listed}")
    return written


def _copy_folders(store: Store, log: OwnLog, source: OwnLogs, days: list[date]) -> list[DeliveredLogManifest]:
    made = []
    for day in days:
        files = log.files_of(day)
        if files is None:
            if day not in log.dataset.closed_days:
                raise InputError(_absent_day(log, day))
            continue
        if files.left_out:
            log_line("make_logs", f"{files.uri}: not read: {_listed(files.left_out)}")
        origin = _origin(log, files.states)
        if find_current(store.delivered_logs(log.log_name, day), DeliveredLogManifest, origin):
            continue
        with log.file_rows(files) as rows:
            parts = {f"{posixpath.splitext(name)[0].replace('/', '_')}.parquet": part for name, part in rows.items()}
            if len(parts) < len(rows):
                raise InputError(f"{files.uri}: has files whose names differ in nothing but their ends; rename them")
            made.append(_write(store, log, day, origin, parts))
    return made


def _copy_at_once(store: Store, log: OwnLog, source: OwnLogs, days: list[date]) -> list[DeliveredLogManifest]:
    """Read a log once for all days that are to be copied from it."""
    origin = _origin(log, log.states())
    again = source.queried_again_days if isinstance(source, SqlSource) else 0
    asked_again = set(days[len(days) - again :])
    wanted = [
        day
        for day in days
        if day in asked_again or not find_current(store.delivered_logs(log.log_name, day), DeliveredLogManifest, origin)
    ]
    if not wanted:
        return []
    if log.left_over():
        log_line("make_logs", f"{log.log_name}: not read: {_listed(log.left_over())}")
    with log.day_rows(wanted) as found:
        if found.undated:
            log_line("make_logs", f"{log.log_name}: {found.undated} rows have no readable time, and are in no day")
        empty = [day for day, rows in found.days.items() if not rows.rows]
        missing = [day for day in empty if day not in log.dataset.closed_days]
        if log.log_name == IMPRESSIONS and missing:
            raise InputError(
                f"{found.where}: there are no impressions of {_listed([str(day) for day in missing])}; deliver "
                "them, or list such days in dataset.closed_days"
            )
        return [
            _write(store, log, day, origin, {LOG_FILE: rows})
            for day, rows in found.days.items()
            if rows.rows or day in missing
        ]


def _origin(log: OwnLog, states: Mapping[str, str]) -> Origin:
    dataset = log.dataset
    settings = {
        "log": log.table.model_dump(mode="json"),
        "columns": [column.model_dump(mode="json") for column in dataset.columns(log.log_name)],
        "timezone": dataset.timezone,
        "users_without_id": dataset.users_without_id,
    }
    return STEP.origin(dict(states), settings)


def _write(store: Store, log: OwnLog, day: date, origin: Origin, parts: Mapping[str, DayRows]) -> DeliveredLogManifest:
    left_out: Counter[str] = Counter()
    for part in parts.values():
        left_out.update(part.left_out)
    rows = sum(part.rows for part in parts.values())
    manifest = DeliveredLogManifest(origin=origin, rows=rows, left_out=dict(sorted(left_out.items())))

    def write(folder: str) -> None:
        for name, part in parts.items():
            storage.upload(part.path, storage.join_uri(folder, name))

    return write_artifact(store.delivered_logs(log.log_name, day), manifest, write)


def _absent_day(log: OwnLog, day: date) -> str:
    uri = getattr(log.table, "uri", "")
    folder = storage.join_uri(uri, f"event_date={day}")
    beside = beside_folders(uri)
    hint = f"; beside the folders of days there are {_listed(beside)}, which are not read" if beside else ""
    near = [other for other in (day - timedelta(days=1), day + timedelta(days=1)) if other in log.folders]
    between = ", between days that are there" if len(near) == 2 else ""
    return (
        f"{folder}: no Parquet, CSV or JSON files{between}{hint}; deliver the {log.log_name} of {day}, or list the day "
        "in dataset.closed_days"
    )


def _listed(names: list[str] | tuple[str, ...]) -> str:
    shown = ", ".join(names[:3])
    return f"{shown} and {len(names) - 3} more" if len(names) > 3 else shown
