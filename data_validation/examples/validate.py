"""Checks labelled examples against their schema before training."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import date, timedelta
from statistics import median
from typing import TypeAlias

from google.protobuf import text_format
from tensorflow_metadata.proto.v0 import anomalies_pb2, schema_pb2, statistics_pb2

from components.common import storage
from components.common.digests import digest_json
from components.common.errors import InputError
from components.common.layout import Store
from components.common.manifests import Step, find_current, find_manifest, read_manifest, write_artifact
from components.common.progress import Progress, log_line
from components.features.events import IMPRESSIONS, DatasetConfig
from components.features.examples import (
    EARLY,
    EVALUATION,
    TRAINING,
    USER_HASH,
    ExamplesManifest,
    ExampleStatisticsManifest,
    example_files,
    read_examples_manifest,
)
from components.features.feature_list import FeatureConfig
from components.features.log_manifests import CleanLogManifest
from data_validation.config import ValidationConfig
from data_validation.examples.anomalies import Report, stopping, validate_statistics, volume_problems, warnings
from data_validation.examples.schema import TRAINING_ENVIRONMENT, contract_schema, parse_schema
from data_validation.examples.statistics import read_statistics, write_statistics
from data_validation.examples.statistics_page import statistics_page

STEP = Step("validate_examples", 2)
_Statistics: TypeAlias = statistics_pb2.DatasetFeatureStatisticsList
STATISTICS_FILE = "statistics.pb"
ANOMALIES_FILE = "anomalies.pbtxt"
NOT_DESCRIBED = frozenset({"impression_id", "timestamp", USER_HASH})


def schema_of(features: FeatureConfig, config: ValidationConfig) -> schema_pb2.Schema:
    """The reviewed schema, or the one that the feature list implies.

    Raises:
        InputError: If the reviewed one is not readable.
    """
    if config.reviewed_schema:
        return parse_schema(config.reviewed_schema, "validation.reviewed_schema")
    return contract_schema(features, config)


def categorical_columns(schema: schema_pb2.Schema) -> frozenset[str]:
    """Integer columns that hold identifiers."""
    return frozenset(feature.name for feature in schema.feature if feature.int_domain.is_categorical)


def described_split(store: Store, day: date) -> str:
    """The split whose statistics are taken: evaluation examples where a day has them, training examples otherwise."""
    return EVALUATION if find_manifest(store.examples(EVALUATION, day), ExamplesManifest) else TRAINING


def validate_examples(
    store_uri: str,
    dataset: DatasetConfig,
    features: FeatureConfig,
    config: ValidationConfig,
    days: list[date],
    early: bool = False,
) -> dict[str, list[str]]:
    """Check every day's examples against the schema and the days before.

    Args:
        store_uri: The store.
        dataset: The data set; the day before is the open one.
        features: The feature list.
        config: The limits.
        days: Days with examples.
        early: Check the examples that were made before their labels are final, whose densities have no limits.

    Returns:
        Warnings by day.

    Raises:
        InputError: If an anomaly stops the run; nothing is kept of that day.
    """
    store, schema = Store(store_uri), schema_of(features, config)
    settings = {"schema": text_format.MessageToString(schema), "validation": config.deciding}
    splits = {day: EARLY if early else described_split(store, day) for day in days}
    warnings_of: dict[str, list[str]] = {}
    progress = Progress("validate_examples", len(days))
    with _new_statistics(store, schema, config, splits) as statistics_of:
        for done, day in enumerate(days, start=1):
            split, uri = splits[day], store.example_statistics(day, early)
            before = dataset.open_day(day, -1)
            volumes = _impressions_before(store, day, config.volume.num_days)
            previous = _previous(store, before, split)
            examples_digest = read_examples_manifest(store, split, day).content_digest
            inputs = {
                "examples": examples_digest,
                "day_before": previous.content_digest if previous else "",
                "volumes": digest_json(volumes),
            }
            origin = STEP.origin(inputs, settings)
            manifest = find_current(uri, ExampleStatisticsManifest, origin)
            if manifest is None:
                statistics = statistics_of(day)
                anomalies = judge_day(
                    store, schema, config, day, statistics, previous_statistics(store, before, split), early
                )
                _stop_on_errors(anomalies, day, uri)
                manifest = ExampleStatisticsManifest(
                    origin=origin,
                    split=split,
                    examples_digest=examples_digest,
                    categorical=tuple(sorted(categorical_columns(schema))),
                    warnings=tuple(warnings(anomalies)),
                )
                _write(uri, manifest, statistics, anomalies)
            warnings_of[str(day)] = list(manifest.warnings)
            progress.update(done, str(day))
    count = sum(len(texts) for texts in warnings_of.values())
    log_line("validate_examples", f"{days[0]}..{days[-1]}: schema holds, {count} warnings")
    return warnings_of


def _stop_on_errors(anomalies: anomalies_pb2.Anomalies, day: date, uri: str) -> None:
    problems = stopping(anomalies)
    if problems:
        storage.remove(uri)
        listed = "; ".join(f"{column}: {text}" for column, text in problems.items())
        raise InputError(f"examples of {day} break the schema: {listed}; correct the logs or the limits")


@contextmanager
def _new_statistics(
    store: Store, schema: schema_pb2.Schema, config: ValidationConfig, splits: dict[date, str]
) -> Iterator[Callable[[date], _Statistics]]:
    """Statistics of days: those that are there for the same examples, the others from one Beam pipeline."""
    categorical = categorical_columns(schema)
    kept, missing = {}, {}
    for day, split in splits.items():
        uri = store.example_statistics(day, split == EARLY)
        manifest = find_manifest(uri, ExampleStatisticsManifest)
        described = (manifest.examples_digest, frozenset(manifest.categorical)) if manifest is not None else None
        if described == (read_examples_manifest(store, split, day).content_digest, categorical):
            kept[day] = storage.join_uri(uri, STATISTICS_FILE)
        else:
            missing[str(day)] = example_files(store, split, day)
    scratch = store.scratch(f"statistics-{uuid.uuid4().hex[:8]}")
    try:
        if missing:
            write_statistics(missing, scratch, categorical, NOT_DESCRIBED, config.beam_options)
        yield lambda day: read_statistics(kept.get(day) or storage.join_uri(scratch, f"{day}.pb"))
    finally:
        storage.remove(scratch)


def judge_day(
    store: Store,
    schema: schema_pb2.Schema,
    config: ValidationConfig,
    day: date,
    statistics: _Statistics,
    previous: _Statistics | None,
    early: bool = False,
) -> anomalies_pb2.Anomalies:
    """All anomalies of one day: schema, drift to the day before, label densities (unless `early`) and volume."""
    anomalies = validate_statistics(
        statistics,
        schema,
        previous,
        environment=TRAINING_ENVIRONMENT,
        severities=config.severity_of_types(),
        allows_chance=True,
    )
    report = Report(schema, config.severity_of_types())
    report.anomalies.CopyFrom(anomalies)
    num_impressions = read_manifest(store.clean_logs(IMPRESSIONS, day), CleanLogManifest).rows
    numbers = {feature.path.step[0]: feature.num_stats for feature in statistics.datasets[0].features}
    for name, density in ({} if early else config.label_density).items():
        stats = numbers[name]
        share = (stats.common_stats.tot_num_values - stats.num_zeros) / max(num_impressions, 1)
        if not density.at_least <= share <= density.at_most:
            text = f"{share:.4f} of the rows are positive, expected {density.at_least} to {density.at_most}"
            report.add(name, [("CUSTOM_VALIDATION", "Label density out of range", text)])
    before = _impressions_before(store, day, config.volume.num_days)
    if before:
        usual, limits = median(before), config.volume
        report.add_to_dataset(volume_problems(num_impressions, usual, limits.at_least, limits.at_most, "impressions"))
    return report.anomalies


def _impressions_before(store: Store, day: date, num_days: int) -> list[int]:
    """Clean impressions of the days before that have any."""
    days = [day - timedelta(days=back) for back in range(1, num_days + 1)]
    manifests = [find_manifest(store.clean_logs(IMPRESSIONS, earlier), CleanLogManifest) for earlier in days]
    return [manifest.rows for manifest in manifests if manifest is not None and manifest.rows]


def write_page(store_uri: str, dataset: DatasetConfig, day: date) -> str:
    """Write the page of a day's statistics beside the reports; returns it."""
    store = Store(store_uri)
    uri = store.example_statistics(day)
    split = read_manifest(uri, ExampleStatisticsManifest).split
    anomalies = text_format.Parse(
        storage.read_bytes(storage.join_uri(uri, ANOMALIES_FILE)).decode(), anomalies_pb2.Anomalies()
    )
    page = statistics_page(
        read_statistics(storage.join_uri(uri, STATISTICS_FILE)),
        f"Examples of {day}",
        previous_statistics(store, dataset.open_day(day, -1), split),
        "the day before",
        anomalies,
    )
    storage.write_bytes(store.report(f"statistics-{day}"), page.encode())
    return page


def _write(
    uri: str, manifest: ExampleStatisticsManifest, statistics: _Statistics, anomalies: anomalies_pb2.Anomalies
) -> None:
    def write(folder: str) -> None:
        content = statistics.SerializeToString(deterministic=True)
        storage.write_bytes(storage.join_uri(folder, STATISTICS_FILE), content)
        text = text_format.MessageToString(anomalies)
        storage.write_bytes(storage.join_uri(folder, ANOMALIES_FILE), text.encode())

    write_artifact(uri, manifest, write)


def _previous(store: Store, before: date, split: str) -> ExampleStatisticsManifest | None:
    """What is known of the day before, if it was as much down-sampled."""
    manifest = find_manifest(store.example_statistics(before, split == EARLY), ExampleStatisticsManifest)
    if manifest is None or manifest.split == split:
        return manifest
    # Without sampling, a day of training examples has all rows as well.
    is_whole = read_examples_manifest(store, manifest.split, before).negative_keep_rate == 1.0
    return manifest if is_whole and EARLY not in (split, manifest.split) else None


def previous_statistics(store: Store, before: date, split: str) -> _Statistics | None:
    """Statistics of the day before, if it was as much down-sampled."""
    if _previous(store, before, split) is None:
        return None
    uri = store.example_statistics(before, split == EARLY)
    return read_statistics(storage.join_uri(uri, STATISTICS_FILE))
