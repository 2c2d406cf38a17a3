"""Validates logs before the join and examples after it; what cannot be used stops the run."""

from __future__ import annotations

from datetime import date
from typing import Any

import pandas as pd
import pyarrow as pa
from google.protobuf import text_format
from tensorflow_metadata.proto.v0 import statistics_pb2

from components.common import storage
from components.common.days import day_range
from components.common.digests import digest_json
from components.common.errors import InputError
from components.common.events import ACTIONS, IMPRESSIONS, TABLES, DatasetConfig
from components.common.examples import EVALUATION, EXAMPLES_FILE, TRAINING
from components.common.features import FeatureConfig
from components.common.layout import Store
from components.common.manifests import Manifest, find_manifest, is_current, read_manifest, write_artifact
from components.common.progress import Progress, log_line
from data_validation.config import ValidationConfig
from data_validation.rows import conform, sort_rows, with_null_columns

CLEAN_KIND = "clean_logs"
QUARANTINE_KIND = "quarantine"
VERDICT_KIND = "log_verdict"
STATISTICS_KIND = "example_statistics"
_LOGS_KIND = "logs"
_EXAMPLES_KIND = "examples"
_PAGE = "expectations.html"
_ROWS_FILE = "part-0.parquet"


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
            manifests[table, day] = _clean_day(store, dataset, table, day, as_of)
        progress.update(done, str(day))
    places = {f"{table} of {day}": _identifier_schema(manifest) for (table, day), manifest in manifests.items()}
    _check_types(places, storage.join_uri(store.root, "clean_logs"))
    inputs = {"clean_logs": digest_json([[t, str(day), manifest.key] for (t, day), manifest in manifests.items()])}
    settings = config.model_dump(mode="json")
    verdict_uri = store.log_verdict(days[0], days[-1])
    if not is_current(verdict_uri, VERDICT_KIND, inputs, settings):
        page = _check_expectations(store, dataset, config, manifests)
        write_artifact(
            verdict_uri,
            Manifest(kind=VERDICT_KIND, inputs=inputs, settings=settings),
            lambda staged: storage.write_bytes(storage.join_uri(staged, _PAGE), page.encode()),
        )
    rows = sum(manifest.counts["rows"] for manifest in manifests.values())
    set_aside = sum(manifest.counts["quarantined"] for manifest in manifests.values())
    log_line("validate_logs", f"{days[0]}..{days[-1]}: {rows} rows clean, {set_aside} in quarantine")
    return storage.read_bytes(storage.join_uri(verdict_uri, _PAGE)).decode()


def _clean_day(store: Store, dataset: DatasetConfig, table_name: str, day: date, as_of: date) -> Manifest:
    source_uri = store.delivered_logs(table_name, day)
    delivered = find_manifest(source_uri, _LOGS_KIND)
    if delivered is None:
        raise InputError(
            f"{source_uri}: there are no {table_name} of {day}; deliver them, or list the day in dataset.closed_days"
        )
    inputs = {f"{table_name}/{entry.name}": entry.sha256 for entry in delivered.files}
    impressions = _impressions_before(store, dataset, day) if table_name == ACTIONS else {}
    inputs |= {uri: manifest.files[0].sha256 for uri, manifest in impressions.items()}
    settings = {"dataset": dataset.model_dump(mode="json")}
    uri = store.clean_logs(table_name, day)
    if is_current(uri, CLEAN_KIND, inputs, settings):
        return read_manifest(uri, CLEAN_KIND)
    table = _read_delivered(source_uri, delivered, table_name, dataset)
    times = [
        storage.read_parquet(storage.join_uri(uri, _ROWS_FILE), ["impression_id", "timestamp", "user_id"])
        for uri in impressions
    ]
    shown = {
        f"impressions of {name.rsplit('=', 1)[-1]}": part.schema for name, part in zip(impressions, times, strict=True)
    }
    _check_types({**shown, f"{table_name} of {day}": table.schema}, storage.join_uri(store.root, "logs"))
    rows = sort_rows(table, table_name, dataset, day, as_of, pa.concat_tables(times) if times else None)
    counts = {"delivered": table.num_rows, "rows": rows.clean.num_rows, "quarantined": rows.rejected.num_rows}
    counts |= {f"quarantined_{reason}": count for reason, count in rows.reasons.items()}
    storage.remove(store.quarantine(table_name, day))
    if rows.rejected.num_rows:
        write_artifact(
            store.quarantine(table_name, day),
            Manifest(kind=QUARANTINE_KIND, inputs=inputs, counts=rows.reasons),
            lambda staged: storage.write_parquet(storage.join_uri(staged, _ROWS_FILE), rows.rejected),
        )
        log_line("validate_logs", f"{day}: {table_name} to quarantine: {rows.reasons}")
    identifiers = [column.name for column in dataset.columns(table_name) if column.kind == "identifier"]
    types = {name: str(rows.clean.schema.field(name).type) for name in identifiers}
    return write_artifact(
        uri,
        Manifest(kind=CLEAN_KIND, inputs=inputs, settings=settings, counts=counts, details={"identifiers": types}),
        lambda staged: storage.write_parquet(storage.join_uri(staged, _ROWS_FILE), rows.clean),
    )


def _identifier_schema(manifest: Manifest) -> pa.Schema:
    """The identifiers of a clean log and their types."""
    return pa.schema([(name, pa.type_for_alias(kind)) for name, kind in manifest.details["identifiers"].items()])


def _impressions_before(store: Store, dataset: DatasetConfig, day: date) -> dict[str, Manifest]:
    """Clean impressions that the day's clicks may name."""
    days = day_range(date.fromordinal(day.toordinal() - dataset.click_days), day)
    found = {
        store.clean_logs(IMPRESSIONS, d): find_manifest(store.clean_logs(IMPRESSIONS, d), CLEAN_KIND) for d in days
    }
    return {uri: manifest for uri, manifest in found.items() if manifest is not None}


def _read_delivered(uri: str, delivered: Manifest, table_name: str, dataset: DatasetConfig) -> pa.Table:
    """The conformed rows of all files of a day, each with its file and row number."""
    parts = []
    for entry in delivered.files:
        path = storage.join_uri(uri, entry.name)
        part = conform(storage.read_parquet(path), table_name, dataset, path)
        part = part.append_column("file", pa.array([entry.name] * part.num_rows, pa.string()))
        parts.append(part.append_column("row", pa.array(range(part.num_rows), pa.int64())))
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
    from data_validation.expectations import check_logs, expectations_page

    volumes = [
        {
            "table": table,
            "event_date": str(day),
            "rows": manifest.counts["rows"],
            "quarantined_share": manifest.counts["quarantined"] / max(manifest.counts["delivered"], 1),
        }
        for (table, day), manifest in manifests.items()
    ]
    samples = {table: _sample(store, table, dataset, manifests, config.sample_rows) for table in TABLES}
    found = check_logs(samples, pd.DataFrame(volumes), dataset, config)
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
        raise InputError(
            f"the logs do not meet {len(failures)} expectations: {worst}. Rows in quarantine by reason: {reasons}, see "
            f"{storage.join_uri(store.root, 'quarantine')}; correct the delivery, or the limits under validation"
        )
    return expectations_page(found)


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
            part = storage.read_parquet(storage.join_uri(store.clean_logs(table, day), _ROWS_FILE))
            parts.append(part.slice(0, wanted))
    return pa.concat_tables(parts, promote_options="permissive").to_pandas()


def validate_examples(
    store_uri: str, dataset: DatasetConfig, features: FeatureConfig, config: ValidationConfig, days: list[date]
) -> dict[str, list[str]]:
    """Check every day's examples against the schema and the day before.

    Evaluation examples are checked where a day has them, training examples otherwise.

    Returns:
        Warnings by day.

    Raises:
        InputError: If an anomaly stops the run; the day's statistics are kept, marked as failed.
    """
    from data_validation.schema import contract_schema, stopping, validate_statistics
    from data_validation.statistics import compute_statistics

    store, schema = Store(store_uri), contract_schema(features, config)
    settings = {"schema": text_format.MessageToString(schema), "validation": config.model_dump(mode="json")}
    warnings: dict[str, list[str]] = {}
    progress = Progress("validate_examples", len(days))
    for done, day in enumerate(day for day in days if day not in dataset.closed_days):
        split = EVALUATION if find_manifest(store.examples(EVALUATION, day), _EXAMPLES_KIND) else TRAINING
        examples = read_manifest(store.examples(split, day), _EXAMPLES_KIND)
        inputs, uri = {"examples": examples.files[0].sha256}, store.example_statistics(day)
        if not is_current(uri, STATISTICS_KIND, inputs, settings):
            table = storage.read_parquet(storage.join_uri(store.examples(split, day), EXAMPLES_FILE))
            statistics = compute_statistics(table, f"{split}/{day}")
            num_impressions = read_manifest(store.clean_logs(IMPRESSIONS, day), CLEAN_KIND).counts["rows"]
            previous = _previous_statistics(store, day, split)
            anomalies = validate_statistics(statistics, schema, config, num_impressions, previous)
            problems = stopping(anomalies)
            if problems:
                listed = "; ".join(f"{column}: {text}" for column, text in problems.items())
                raise InputError(f"examples of {day} break the schema: {listed}; correct the logs or the limits")

            def write(staged: str, statistics: Any = statistics, anomalies: Any = anomalies) -> None:
                storage.write_bytes(storage.join_uri(staged, "statistics.pb"), statistics.SerializeToString(True))
                for name, message in (("anomalies.pbtxt", anomalies), ("schema.pbtxt", schema)):
                    text = text_format.MessageToString(message)
                    storage.write_bytes(storage.join_uri(staged, name), text.encode())

            shown = [f"{column}: {info.description}" for column, info in sorted(anomalies.anomaly_info.items())]
            manifest = Manifest(
                kind=STATISTICS_KIND, inputs=inputs, settings=settings, details={"warnings": shown, "split": split}
            )
            write_artifact(uri, manifest, write)
        warnings[str(day)] = read_manifest(uri, STATISTICS_KIND).details["warnings"]
        progress.update(done + 1, str(day))
    count = sum(len(found) for found in warnings.values())
    log_line("validate_examples", f"{days[0]}..{days[-1]}: schema holds, {count} warnings")
    return warnings


def _previous_statistics(store: Store, day: date, split: str) -> statistics_pb2.DatasetFeatureStatisticsList | None:
    """Statistics of the day before, if it was as much down-sampled."""
    uri = store.example_statistics(date.fromordinal(day.toordinal() - 1))
    manifest = find_manifest(uri, STATISTICS_KIND)
    if manifest is None or manifest.details["split"] != split:
        return None
    content = storage.read_bytes(storage.join_uri(uri, "statistics.pb"))
    return statistics_pb2.DatasetFeatureStatisticsList.FromString(content)


def main_logs(
    store_uri: str,
    dataset: dict[str, Any],
    validation: dict[str, Any],
    days: tuple[str, str],
    as_of: str,
    history_days: int,
) -> str:
    """`validate_logs` from plain values, over all log days that the examples of `days` depend on."""
    contract, known_on = DatasetConfig.parse(dataset, "dataset"), date.fromisoformat(as_of)
    first, last = (date.fromisoformat(day) for day in days)
    read = [day for day in contract.days_read(first, last, history_days) if day < known_on]
    return validate_logs(store_uri, contract, ValidationConfig.parse(validation, "validation"), read, known_on)


def main_examples(
    store_uri: str,
    dataset: dict[str, Any],
    features: dict[str, Any],
    validation: dict[str, Any],
    days: tuple[str, str],
) -> dict[str, list[str]]:
    """`validate_examples` from plain values."""
    first, last = (date.fromisoformat(day) for day in days)
    return validate_examples(
        store_uri,
        DatasetConfig.parse(dataset, "dataset"),
        FeatureConfig.parse(features, "features"),
        ValidationConfig.parse(validation, "validation"),
        day_range(first, last),
    )
