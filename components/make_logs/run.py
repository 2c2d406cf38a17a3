"""Writes logs in the contract, one directory a day."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import date
from typing import ClassVar

import numpy as np
import pyarrow as pa

from components.common import parquet_files, storage
from components.common.config import ResolvedConfig
from components.common.days import MICROSECONDS_PER_DAY, day_of
from components.common.layout import Store
from components.common.manifests import Manifest, Origin, Step, find_current, write_artifact
from components.common.progress import log_line
from components.features.events import ACTIONS, IMPRESSIONS, LOG_NAMES, DatasetConfig
from components.features.feature_list import FeatureConfig
from components.features.log_manifests import LOG_FILE, DeliveredLogManifest
from components.make_logs import complete_journey, simulator
from components.make_logs.own_logs import copy_logs
from components.sources.config import (
    CompleteJourneySource,
    FilesSource,
    SimulatorSource,
    SqlSource,
    VectorSource,
    parse_source,
)
from components.sources.vector_days import check_id_types, deliver_vectors

STEP = Step("make_logs")


class GeneratedLogsManifest(Manifest):
    """All logs of a source that makes its days at once.

    Attributes:
        rows: By log.
    """

    kind: ClassVar[str] = "generated_logs"

    rows: dict[str, int]


def make_logs(store_uri: str, dataset: DatasetConfig, source_values: dict, days: list[date]) -> dict[str, int]:
    """Bring the logs of some days into the store; days that are there unchanged are left alone.

    Generating sources make all their days at once. A day that is not in a company's own logs is an error.

    Returns:
        Rows per log that were written by this call.
    """
    store, source = Store(store_uri), parse_source(source_values, "source")
    if isinstance(source, FilesSource | SqlSource):
        written = copy_logs(store, dataset, source, days)
    else:
        written = _generate(store, dataset, source)
    log_line("make_logs", f"{source.kind}: wrote {written[IMPRESSIONS]} impressions and {written[ACTIONS]} actions")
    return written


def _generate(store: Store, dataset: DatasetConfig, source: CompleteJourneySource | SimulatorSource) -> dict[str, int]:
    settings = {"source": source.model_dump(mode="json"), "dataset": dataset.model_dump(mode="json")}
    written = dict.fromkeys(LOG_NAMES, 0)
    origin = STEP.origin(settings=settings)
    if find_current(store.logs_marker(), GeneratedLogsManifest, origin):
        return written
    if isinstance(source, CompleteJourneySource):
        impressions, actions = complete_journey.read_logs(source.last_day)
        truth = None
    else:
        impressions, actions, truth = simulator.simulate(source, dataset)
    storage.remove(store.logs_marker())
    tables = {IMPRESSIONS: impressions, ACTIONS: actions}
    for name, table in tables.items():
        for day, part in split_days(simulator.simulator_days(table, dataset.first_day, source.last_day)):
            _write_day(store.delivered_logs(name, day), part, origin)
            written[name] += part.num_rows
    if truth is not None:
        for day, part in split_days(truth):
            _write_day(store.truth(day), part, origin)
    write_artifact(store.logs_marker(), GeneratedLogsManifest(origin=origin, rows=written), lambda folder: None)
    return written


def split_days(table: pa.Table) -> Iterator[tuple[date, pa.Table]]:
    """The days of a table that is in order of time."""
    if not table.num_rows:
        return
    ordinals = table["timestamp"].cast(pa.int64()).to_numpy() // MICROSECONDS_PER_DAY
    starts = np.flatnonzero(np.diff(ordinals, prepend=-1))
    for start, stop in zip(starts, [*starts[1:], len(ordinals)], strict=True):
        yield day_of(int(ordinals[start])), table.slice(start, stop - start)


def _write_day(uri: str, table: pa.Table, origin: Origin) -> None:
    manifest = DeliveredLogManifest(origin=origin, rows=table.num_rows)
    write_artifact(uri, manifest, lambda folder: parquet_files.write_parquet(storage.join_uri(folder, LOG_FILE), table))


def main(store_uri: str, config_uri: str, first_day: str, last_day: str) -> dict[str, int]:
    """`make_logs` under a run's configuration, of the days that the examples of `first_day`..`last_day` depend on."""
    config = ResolvedConfig.open(config_uri)
    dataset, features = config.section(DatasetConfig, "dataset"), config.section(FeatureConfig, "features")
    days = dataset.days_read(date.fromisoformat(first_day), date.fromisoformat(last_day), features.history_days)
    return make_logs(store_uri, dataset, config.values["source"], days)


def main_vectors(store_uri: str, config_uri: str, first_day: str, last_day: str) -> None:
    """Bring in the deliveries of pretrained vectors that `first_day`..`last_day`, and the day after them, know."""
    config, store = ResolvedConfig.open(config_uri), Store(store_uri)
    first, last = date.fromisoformat(first_day), date.fromisoformat(last_day)
    for feature in config.section(FeatureConfig, "features").vectors:
        source = config.section(VectorSource, "vectors", feature.name)
        deliver_vectors(store, feature, source, first, last)
        check_id_types(store, feature, source, last)
