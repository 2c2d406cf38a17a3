"""Checks labelled examples against their schema before training."""

from __future__ import annotations

from datetime import date
from typing import Any

from google.protobuf import text_format
from tensorflow_metadata.proto.v0 import statistics_pb2

from components.common import storage
from components.common.errors import InputError
from components.common.events import IMPRESSIONS
from components.common.examples import EVALUATION, TRAINING, read_examples
from components.common.features import FeatureConfig
from components.common.layout import (
    CLEAN_LOGS_KIND,
    EXAMPLE_STATISTICS_KIND,
    EXAMPLES_KIND,
    Store,
)
from components.common.manifests import Manifest, find_manifest, is_current, read_manifest, write_artifact
from components.common.progress import Progress, log_line
from data_validation.config import ValidationConfig
from data_validation.schema import contract_schema, stopping, validate_statistics
from data_validation.statistics import compute_statistics


def validate_examples(
    store_uri: str, features: FeatureConfig, config: ValidationConfig, days: list[date]
) -> dict[str, list[str]]:
    """Check every day's examples against the schema and the day before.

    Evaluation examples are checked where a day has them, training examples otherwise.

    Returns:
        Warnings by day.

    Raises:
        InputError: If an anomaly stops the run; the day's statistics are kept, marked as failed.
    """
    store, schema = Store(store_uri), contract_schema(features, config)
    settings = {"schema": text_format.MessageToString(schema), "validation": config.model_dump(mode="json")}
    warnings: dict[str, list[str]] = {}
    progress = Progress("validate_examples", len(days))
    for done, day in enumerate(days):
        split = EVALUATION if find_manifest(store.examples(EVALUATION, day), EXAMPLES_KIND) else TRAINING
        examples = read_manifest(store.examples(split, day), EXAMPLES_KIND)
        inputs, uri = {"examples": examples.content_digest}, store.example_statistics(day)
        if not is_current(uri, EXAMPLE_STATISTICS_KIND, inputs, settings):
            table, _ = read_examples(store, split, day)
            statistics = compute_statistics(table, f"{split}/{day}")
            num_impressions = read_manifest(store.clean_logs(IMPRESSIONS, day), CLEAN_LOGS_KIND).counts["rows"]
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
                kind=EXAMPLE_STATISTICS_KIND,
                inputs=inputs,
                settings=settings,
                details={"warnings": shown, "split": split},
            )
            write_artifact(uri, manifest, write)
        warnings[str(day)] = read_manifest(uri, EXAMPLE_STATISTICS_KIND).details["warnings"]
        progress.update(done + 1, str(day))
    count = sum(len(found) for found in warnings.values())
    log_line("validate_examples", f"{days[0]}..{days[-1]}: schema holds, {count} warnings")
    return warnings


def _previous_statistics(store: Store, day: date, split: str) -> statistics_pb2.DatasetFeatureStatisticsList | None:
    """Statistics of the day before, if it was as much down-sampled."""
    uri = store.example_statistics(date.fromordinal(day.toordinal() - 1))
    manifest = find_manifest(uri, EXAMPLE_STATISTICS_KIND)
    if manifest is None or manifest.details["split"] != split:
        return None
    content = storage.read_bytes(storage.join_uri(uri, "statistics.pb"))
    return statistics_pb2.DatasetFeatureStatisticsList.FromString(content)
