"""Cleans raw logs and checks them as a whole before the join."""

from __future__ import annotations

from datetime import date

import numpy as np
import pandas as pd
import pyarrow as pa

from components.common import storage
from components.common.days import day_range
from components.common.digests import digest_json
from components.common.errors import InputError
from components.common.events import ACTIONS, IMPRESSIONS, TABLES, DatasetConfig
from components.common.layout import (
    CLEAN_LOGS_KIND,
    LOG_FILE,
    LOG_VERDICT_KIND,
    LOGS_KIND,
    QUARANTINE_KIND,
    Store,
)
from components.common.manifests import Manifest, find_manifest, is_current, read_manifest, write_artifact
from components.common.progress import Progress, log_line
from data_validation.config import ValidationConfig
from data_validation.rows import USER_OVER_CAP, conform, sort_rows, with_null_columns

_PAGE = "expectations.html"


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
    manifests = {}
    for done, day in enumerate(days, start=1):
        for table in TABLES:
            manifests[table, day] = _clean_day(store, dataset, config, table, day, as_of)
        progress.update(done, str(day))
    places = {f"{table} of {day}": _identifier_schema(manifest) for (table, day), manifest in manifests.items()}
    _check_types(places, storage.join_uri(store.root, "clean_logs"))
    inputs = {"clean_logs": digest_json([[t, str(day), manifest.key] for (t, day), manifest in manifests.items()])}
    settings = config.model_dump(mode="json")
    verdict_uri = store.log_verdict(days[0], days[-1])
    if not is_current(verdict_uri, LOG_VERDICT_KIND, inputs, settings):
        page = _check_expectations(store, dataset, config, manifests)
        write_artifact(
            verdict_uri,
            Manifest(kind=LOG_VERDICT_KIND, inputs=inputs, settings=settings),
            lambda staged: storage.write_bytes(storage.join_uri(staged, _PAGE), page.encode()),
        )
    rows = sum(manifest.counts["rows"] for manifest in manifests.values())
    set_aside = sum(manifest.counts["quarantined"] for manifest in manifests.values())
    log_line("validate_logs", f"{days[0]}..{days[-1]}: {rows} rows clean, {set_aside} in quarantine")
    return storage.read_bytes(storage.join_uri(verdict_uri, _PAGE)).decode()


def _clean_day(
    store: Store, dataset: DatasetConfig, config: ValidationConfig, table_name: str, day: date, as_of: date
) -> Manifest:
    source_uri = store.delivered_logs(table_name, day)
    delivered = find_manifest(source_uri, LOGS_KIND)
    if delivered is None:
        raise InputError(
            f"{source_uri}: there are no {table_name} of {day}; deliver them, or list the day in dataset.closed_days"
        )
    inputs = {f"{table_name}/{entry.name}": entry.sha256 for entry in delivered.files}
    impressions = _impressions_before(store, dataset, day) if table_name == ACTIONS else {}
    inputs |= {uri: manifest.content_digest for uri, manifest in impressions.items()}
    max_user_rows = config.max_user_rows_per_day
    settings = {"dataset": dataset.model_dump(mode="json"), "max_user_rows_per_day": max_user_rows}
    uri = store.clean_logs(table_name, day)
    if is_current(uri, CLEAN_LOGS_KIND, inputs, settings):
        return read_manifest(uri, CLEAN_LOGS_KIND)
    table = _read_delivered(source_uri, delivered, table_name, dataset)
    times = [
        storage.read_parquet(storage.join_uri(uri, LOG_FILE), ["impression_id", "timestamp", "user_id"])
        for uri in impressions
    ]
    shown = {
        f"impressions of {name.rsplit('=', 1)[-1]}": part.schema for name, part in zip(impressions, times, strict=True)
    }
    _check_types({**shown, f"{table_name} of {day}": table.schema}, storage.join_uri(store.root, "logs"))
    shown_before = pa.concat_tables(times) if times else None
    rows = sort_rows(table, table_name, dataset, day, as_of, max_user_rows, shown_before)
    counts = {"delivered": table.num_rows, "rows": rows.clean.num_rows, "quarantined": rows.rejected.num_rows}
    counts |= {f"quarantined_{reason}": count for reason, count in rows.reasons.items()}
    storage.remove(store.quarantine(table_name, day))
    if rows.rejected.num_rows:
        write_artifact(
            store.quarantine(table_name, day),
            Manifest(kind=QUARANTINE_KIND, inputs=inputs, counts=rows.reasons),
            lambda staged: storage.write_parquet(storage.join_uri(staged, LOG_FILE), rows.rejected),
        )
        log_line("validate_logs", f"{day}: {table_name} to quarantine: {rows.reasons}")
    identifiers = [column.name for column in dataset.columns(table_name) if column.kind == "identifier"]
    types = {name: str(rows.clean.schema.field(name).type) for name in identifiers}
    return write_artifact(
        uri,
        Manifest(kind=CLEAN_LOGS_KIND, inputs=inputs, settings=settings, counts=counts, details={"identifiers": types}),
        lambda staged: storage.write_parquet(storage.join_uri(staged, LOG_FILE), rows.clean),
    )


def _identifier_schema(manifest: Manifest) -> pa.Schema:
    """The identifiers of a clean log and their types."""
    return pa.schema([(name, pa.type_for_alias(kind)) for name, kind in manifest.details["identifiers"].items()])


def _impressions_before(store: Store, dataset: DatasetConfig, day: date) -> dict[str, Manifest]:
    """Clean impressions that the day's clicks may name."""
    days = day_range(date.fromordinal(day.toordinal() - dataset.click_days), day)
    found = {
        store.clean_logs(IMPRESSIONS, d): find_manifest(store.clean_logs(IMPRESSIONS, d), CLEAN_LOGS_KIND) for d in days
    }
    return {uri: manifest for uri, manifest in found.items() if manifest is not None}


def _read_delivered(uri: str, delivered: Manifest, table_name: str, dataset: DatasetConfig) -> pa.Table:
    """The conformed rows of all files of a day, each with its file and row number."""
    parts = []
    for entry in delivered.files:
        path = storage.join_uri(uri, entry.name)
        part = conform(storage.read_parquet(path), table_name, dataset, path)
        part = part.append_column("file", pa.array([entry.name] * part.num_rows, pa.string()))
        parts.append(part.append_column("row", pa.array(np.arange(part.num_rows))))
    _check_types({entry.name: part.schema for entry, part in zip(delivered.files, parts, strict=True)}, uri)
    table = pa.concat_tables(parts, promote_options="permissive").combine_chunks()
    return with_null_columns(table, table_name, dataset)


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
            first, found = seen.setdefault(field.name, (place, field.type))
            if found != field.type:
                raise InputError(
                    f"{where}: column {field.name!r} is {found} in {first} and {field.type} in {place}; identifiers "
                    "are integers or strings, the same everywhere: convert one of the two"
                )


def _check_expectations(
    store: Store,
    dataset: DatasetConfig,
    config: ValidationConfig,
    manifests: dict[tuple[str, date], Manifest],
) -> str:
    from data_validation.expectations import check_logs

    volumes = [
        {
            "table": table,
            "event_date": str(day),
            "rows": manifest.counts["rows"],
            "quarantined_share": _unexpected(manifest) / max(manifest.counts["delivered"], 1),
        }
        for (table, day), manifest in manifests.items()
    ]
    samples = {table: _sample(store, table, dataset, manifests, config.sample_rows) for table in TABLES}
    found, page = check_logs(samples, pd.DataFrame(volumes), dataset, config)
    failures = [item for item in found if not item.met]
    if failures:
        worst = "; ".join(f"{item.suite}: {item.name} of {item.column}: {item.observed}" for item in failures)
        reasons: dict[str, int] = {}
        for manifest in manifests.values():
            for name, count in manifest.counts.items():
                if name.startswith("quarantined_"):
                    reasons[name.removeprefix("quarantined_")] = (
                        reasons.get(name.removeprefix("quarantined_"), 0) + count
                    )
        storage.write_bytes(store.failed_expectations(), page.encode())
        raise InputError(
            f"the logs do not meet {len(failures)} expectations: {worst}. Rows in quarantine by reason: {reasons}, see "
            f"{storage.join_uri(store.root, 'quarantine')} and {store.failed_expectations()}; correct the delivery, or "
            "the limits under validation"
        )
    return page


def _unexpected(manifest: Manifest) -> int:
    """Quarantined rows that speak against a delivery; rows of a user over the daily cap are a matter of that user."""
    return manifest.counts["quarantined"] - manifest.counts.get(f"quarantined_{USER_OVER_CAP}", 0)


def _sample(
    store: Store,
    table: str,
    dataset: DatasetConfig,
    manifests: dict[tuple[str, date], Manifest],
    sample_rows: int,
) -> pd.DataFrame:
    """The first rows of the newest days, clean ones: what quarantine took is judged by its share."""
    days = sorted((day for name, day in manifests if name == table), reverse=True)
    parts: list[pa.Table] = []
    for day in days:
        wanted = sample_rows - sum(part.num_rows for part in parts)
        if wanted > 0:
            part = storage.read_parquet(storage.join_uri(store.clean_logs(table, day), LOG_FILE))
            parts.append(part.slice(0, wanted))
    return pa.concat_tables(parts, promote_options="permissive").to_pandas()
