"""Cleans raw logs and checks them as a whole before the join."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Collection
from datetime import date, timedelta
from typing import ClassVar

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from components.common import parquet_files, storage
from components.common.days import day_range
from components.common.digests import digest_json
from components.common.errors import InputError
from components.common.layout import Store
from components.common.manifests import (
    Manifest,
    Step,
    find_current,
    find_manifest,
    verified_content,
    write_artifact,
)
from components.common.progress import Progress, log_line
from components.features.events import ACTIONS, IDENTIFYING, IMPRESSIONS, LOG_NAMES, DatasetConfig, identifier_type
from components.features.log_manifests import LOG_FILE, CleanLogManifest, DeliveredLogManifest, QuarantineManifest
from data_validation.config import ValidationConfig
from data_validation.logs.expectations import DAYS_OF, Expectation, check_logs
from data_validation.logs.remedies import remedy
from data_validation.logs.row_checks import USER_OVER_CAP, conform, sort_rows, with_null_columns

STEP = Step("validate_logs", 2)
_PAGE = "expectations.html"
_NUM_REASONS = 3


class LogVerdictManifest(Manifest):
    """Great Expectations' findings on the logs of a span of days."""

    kind: ClassVar[str] = "log_verdict"


Manifests = dict[tuple[str, date], CleanLogManifest]


def validate_logs(
    store_uri: str, dataset: DatasetConfig, config: ValidationConfig, days: list[date], as_of: date
) -> str:
    """Clean the logs of some days and check them as a whole; days that were cleaned before are left alone.

    Bad rows go to `quarantine/` with their reason, file and row number.

    Returns:
        The page of Great Expectations' findings, as HTML.

    Raises:
        InputError: If a file is not readable or has the wrong columns, a day is absent or empty, or an expectation is
            not met.
    """
    store = Store(store_uri)
    progress = Progress("validate_logs", len(days))
    manifests: Manifests = {}
    folder = storage.join_uri(store.root, "clean_logs")
    listed = {storage.join_uri(folder, path) for path in storage.list_tree(folder)}
    for done, day in enumerate(days, start=1):
        for name in LOG_NAMES:
            manifest = _clean_day(store, dataset, config, name, day, as_of, manifests, listed)
            if manifest is not None:
                manifests[name, day] = manifest
        progress.update(done, str(day))
    places = {f"{name} of {day}": pa.schema(manifest.identifier_types) for (name, day), manifest in manifests.items()}
    _check_types(places, folder)
    keys = [[name, str(day), manifest.origin.key] for (name, day), manifest in manifests.items()]
    origin = STEP.origin({"clean_logs": digest_json(keys)}, config.deciding)
    verdict_uri = store.log_verdict(days[0], days[-1])
    if not find_current(verdict_uri, LogVerdictManifest, origin):
        page = _check_expectations(store, dataset, config, manifests)
        write_artifact(
            verdict_uri,
            LogVerdictManifest(origin=origin),
            lambda folder: storage.write_bytes(storage.join_uri(folder, _PAGE), page.encode()),
        )
    rows = sum(manifest.rows for manifest in manifests.values())
    set_aside = sum(manifest.num_quarantined for manifest in manifests.values())
    log_line("validate_logs", f"{days[0]}..{days[-1]}: {rows} rows clean, {set_aside} in quarantine")
    return storage.read_bytes(storage.join_uri(verdict_uri, _PAGE)).decode()


def _clean_day(
    store: Store,
    dataset: DatasetConfig,
    config: ValidationConfig,
    log_name: str,
    day: date,
    as_of: date,
    known: Manifests,
    listed: Collection[str],
) -> CleanLogManifest | None:
    """Clean one day of a log; None where there is none on a closed day. `known` are those before."""
    source_uri = store.delivered_logs(log_name, day)
    delivered = find_manifest(source_uri, DeliveredLogManifest)
    if delivered is None and day in dataset.closed_days:
        return None
    if delivered is None:
        raise InputError(
            f"{source_uri}: there are no {log_name} of {day}; deliver them, or list the day in dataset.closed_days"
        )
    inputs = {f"{log_name}/{entry.name}": entry.sha256 for entry in delivered.files}
    impressions = _impressions_before(store, dataset, day, known) if log_name == ACTIONS else {}
    inputs |= {uri: manifest.content_digest for uri, manifest in impressions.items()}
    max_user_rows = config.max_user_rows_per_day
    origin = STEP.origin(inputs, {"dataset": dataset.model_dump(mode="json"), "max_user_rows_per_day": max_user_rows})
    uri = store.clean_logs(log_name, day)
    current = find_current(uri, CleanLogManifest, origin, listed)
    if current is not None:
        return current
    table = _read_delivered(source_uri, delivered, log_name, dataset)
    times = [_read_clean(*logs, ["impression_id", "timestamp", "user_id"]) for logs in impressions.items()]
    shown = {
        f"impressions of {name.rsplit('=', 1)[-1]}": part.schema for name, part in zip(impressions, times, strict=True)
    }
    _check_types({**shown, f"{log_name} of {day}": table.schema}, storage.join_uri(store.root, "logs"))
    shown_before = pa.concat_tables(times) if times else None
    rows = sort_rows(table, log_name, dataset, day, as_of, max_user_rows, shown_before)
    storage.remove(store.quarantine(log_name, day))
    if rows.rejected.num_rows:
        write_artifact(
            store.quarantine(log_name, day),
            QuarantineManifest(origin=origin, reasons=rows.reasons),
            lambda folder: parquet_files.write_parquet(storage.join_uri(folder, LOG_FILE), rows.rejected),
        )
        log_line("validate_logs", f"{day}: {log_name} to quarantine: {rows.reasons}")
    identifying = [column.name for column in dataset.columns(log_name) if column.kind in IDENTIFYING]
    types = {name: str(identifier_type(rows.clean.schema.field(name).type)) for name in identifying}
    return write_artifact(
        uri,
        CleanLogManifest(
            origin=origin,
            rows=rows.clean.num_rows,
            delivered=table.num_rows,
            quarantined=rows.reasons,
            identifiers=types,
        ),
        lambda folder: parquet_files.write_parquet(storage.join_uri(folder, LOG_FILE), rows.clean),
    )


def _impressions_before(
    store: Store, dataset: DatasetConfig, day: date, known: Manifests
) -> dict[str, CleanLogManifest]:
    """Clean impressions that the day's clicks may name."""
    before = {}
    for earlier in day_range(day - timedelta(days=math.ceil(dataset.click_days)), day):
        uri = store.clean_logs(IMPRESSIONS, earlier)
        manifest = known.get((IMPRESSIONS, earlier)) or find_manifest(uri, CleanLogManifest)
        if manifest is not None:
            before[uri] = manifest
    return before


def _read_clean(uri: str, manifest: CleanLogManifest, columns: list[str] | None = None) -> pa.Table:
    contents = [verified_content(uri, entry) for entry in manifest.files]
    return pa.concat_tables([parquet_files.read_parquet(path, columns, content) for path, content in contents])


def _read_delivered(uri: str, delivered: DeliveredLogManifest, log_name: str, dataset: DatasetConfig) -> pa.Table:
    """The conformed rows of all files of a day, each with its file and row number."""
    parts = []
    for entry in delivered.files:
        path, content = verified_content(uri, entry)
        part = conform(parquet_files.read_parquet(path, content=content), log_name, dataset, path)
        part = part.append_column("file", pa.array([entry.name] * part.num_rows, pa.string()))
        parts.append(part.append_column("row", pa.array(np.arange(part.num_rows))))
    _check_types({entry.name: part.schema for entry, part in zip(delivered.files, parts, strict=True)}, uri)
    table = pa.concat_tables(parts, promote_options="permissive").combine_chunks()
    return with_null_columns(table, log_name, dataset)


def _check_types(schemas: dict[str, pa.Schema], where: str) -> None:
    """Check that an identifier has one type everywhere; columns without any value have none.

    Raises:
        InputError: Naming the column and the two places.
    """
    seen: dict[str, tuple[str, pa.DataType]] = {}
    for place, schema in schemas.items():
        for field in schema:
            if pa.types.is_null(field.type):
                continue
            first, first_type = seen.setdefault(field.name, (place, field.type))
            if first_type != field.type:
                raise InputError(
                    f"{where}: column {field.name!r} is {first_type} in {first} and {field.type} in {place}; "
                    "identifiers are integers or strings, the same everywhere: convert one of the two"
                )


def _check_expectations(
    store: Store,
    dataset: DatasetConfig,
    config: ValidationConfig,
    manifests: Manifests,
) -> str:
    volumes = [
        {
            "log_name": name,
            "event_date": str(day),
            "rows": manifest.rows,
            "quarantined_share": _unexpected(manifest) / max(manifest.delivered, 1),
        }
        for (name, day), manifest in manifests.items()
        if day not in dataset.closed_days
    ]
    samples = {name: _sample(store, name, manifests, config.sample_rows) for name in LOG_NAMES}
    expectations, page = check_logs(samples, pd.DataFrame(volumes), dataset, config)
    failures = [item for item in expectations if not item.met]
    if failures:
        storage.write_bytes(store.failed_expectations(), page.encode())
        said = [text for item in failures for text in _in_words(store, item, config, manifests)]
        raise InputError(
            f"the logs do not meet {len(failures)} expectations: {'; '.join(said)}. See {store.failed_expectations()} "
            f"and {storage.join_uri(store.root, 'quarantine')}; correct the delivery, or the limits under validation"
        )
    return page


def _in_words(
    store: Store,
    failed: Expectation,
    config: ValidationConfig,
    manifests: Manifests,
) -> list[str]:
    """What an expectation that is not met is about, with the option that helps."""
    if failed.column != "quarantined_share":
        return [f"{failed.suite}: {failed.name} of {failed.column}: {failed.observed}"]
    log_name = failed.suite.removeprefix(DAYS_OF)
    over = {
        day: manifest
        for (name, day), manifest in manifests.items()
        if name == log_name and _unexpected(manifest) > config.max_quarantined_share * manifest.delivered
    }
    reasons: Counter[str] = Counter()
    for manifest in over.values():
        reasons.update({name: count for name, count in manifest.quarantined.items() if name != USER_OVER_CAP})
    worst, delivered = min(over), sum(manifest.delivered for manifest in over.values())
    texts = []
    for reason, count in reasons.most_common(_NUM_REASONS):
        day = next(day for day, manifest in over.items() if reason in manifest.quarantined)
        rejected = parquet_files.read_parquet(storage.join_uri(store.quarantine(log_name, day), LOG_FILE))
        of_reason = rejected.filter(pc.equal(rejected["reason"], reason))
        texts.append(f"{count} {reason}: on {day} {remedy(reason, of_reason, log_name)}")
    share = f"{sum(reasons.values()) / delivered:.1%} of the {log_name} of {len(over)} days from {worst} on"
    return [f"{share} are faulty, at most {config.max_quarantined_share:.1%} are allowed: {'; '.join(texts)}"]


def _unexpected(manifest: CleanLogManifest) -> int:
    """Quarantined rows that speak against a delivery; rows of a user over the daily cap are a matter of that user."""
    return manifest.num_quarantined - manifest.quarantined.get(USER_OVER_CAP, 0)


def _sample(store: Store, log_name: str, manifests: Manifests, sample_rows: int) -> pd.DataFrame:
    """The first rows of the newest days, clean ones: what quarantine took is judged by its share."""
    days = sorted((day for name, day in manifests if name == log_name), reverse=True)
    parts: list[pa.Table] = []
    for day in days:
        wanted = sample_rows - sum(part.num_rows for part in parts)
        if wanted > 0:
            part = _read_clean(store.clean_logs(log_name, day), manifests[log_name, day])
            parts.append(part.slice(0, wanted))
    return pa.concat_tables(parts, promote_options="permissive").to_pandas()
