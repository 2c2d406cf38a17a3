"""The edges of log days, each from its own logs only, as a Beam pipeline; days that are there are left alone."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date

import apache_beam as beam
import numpy as np
import pyarrow as pa
from apache_beam.runners.runner import PipelineState

from components.common import parquet_files, storage
from components.common.beam import open_pipeline
from components.common.config import ResolvedConfig
from components.common.errors import TransientError
from components.common.layout import Store
from components.common.manifests import (
    Origin,
    Step,
    find_current,
    find_manifest,
    read_manifest,
    verified_content,
    write_artifact,
)
from components.common.progress import log_line
from components.features.edges import (
    EDGES_FILE,
    SCHEMA,
    EdgesConfig,
    EdgesManifest,
    Relation,
    edge_settings,
    edges_of,
    merge_edges,
)
from components.features.events import LOG_NAMES, DatasetConfig
from components.features.log_events import Events
from components.features.log_manifests import CleanLogManifest

STEP = Step("collect-edges")
_ROWS_AT_ONCE = 1_000_000


@dataclass(frozen=True)
class DayOfLogs:
    """What the edges of one day are made from.

    Attributes:
        day: The day.
        clean: Its logs, by name.
        origin: Of the edges.
    """

    day: date
    clean: dict[str, CleanLogManifest]
    origin: Origin


class CollectDay(beam.DoFn):
    """Makes the edges of one day; memory follows the day's different edges."""

    def __init__(self, store_root: str, relations: tuple[Relation, ...]) -> None:
        """Write to a store."""
        self._root, self._relations = store_root, relations

    def process(self, logs: DayOfLogs) -> Iterator[str]:
        """Yield what was found, once the day's edges are there for readers."""
        store, total = Store(self._root), SCHEMA.empty_table()
        without_id = np.zeros(len(self._relations), dtype=np.int64)
        for name, clean in sorted(logs.clean.items()):
            for entry in clean.files:
                uri, content = verified_content(store.clean_logs(name, logs.day), entry)
                for rows in parquet_files.read_parquet_batches(uri, _ROWS_AT_ONCE, content=content):
                    edges, lacking = edges_of(name, Events.of(rows), self._relations)
                    total, without_id = merge_edges([total, edges]), without_id + lacking
        manifest = self._describe(logs.origin, total, without_id)
        write_artifact(
            store.edges(logs.day),
            manifest,
            lambda folder: parquet_files.write_parquet(storage.join_uri(folder, EDGES_FILE), total),
        )
        listed = zip(manifest.relations, manifest.edges, manifest.without_id, strict=True)
        shown = ", ".join(f"{count} {name}" + (f" ({lost} without id)" if lost else "") for name, count, lost in listed)
        yield f"{logs.day}: {shown}"

    def _describe(self, origin: Origin, edges: pa.Table, without_id: np.ndarray) -> EdgesManifest:
        number, size = edges["relation"].to_numpy(), len(self._relations)
        return EdgesManifest(
            origin=origin,
            relations=tuple(relation.name for relation in self._relations),
            edges=tuple(np.bincount(number, minlength=size).tolist()),
            events=tuple(np.bincount(number, edges["count"].to_numpy(), size).astype(int).tolist()),
            without_id=tuple(without_id.tolist()),
        )


def collect_edges(store_uri: str, dataset: DatasetConfig, config: EdgesConfig, days: list[date]) -> list[date]:
    """Make the edges of days whose clean logs are there.

    Returns:
        The days that were made by this call.

    Raises:
        InputError: If the logs of an open day are missing.
    """
    store, waiting = Store(store_uri), []
    for day in days:
        find = find_manifest if day in dataset.closed_days else read_manifest
        found = {name: find(store.clean_logs(name, day), CleanLogManifest) for name in LOG_NAMES}
        clean = {name: manifest for name, manifest in found.items() if manifest is not None}
        inputs = {name: manifest.content_digest for name, manifest in clean.items()}
        origin = STEP.origin(inputs, edge_settings(config.relations))
        if find_current(store.edges(day), EdgesManifest, origin) is None:
            waiting.append(DayOfLogs(day, clean, origin))
    if not waiting:
        log_line(STEP.name, f"{days[0]}..{days[-1]}: edges are there, nothing to do")
        return []
    pipeline = open_pipeline(config.beam_options)
    done = pipeline | beam.Create(waiting) | beam.Reshuffle() | beam.ParDo(CollectDay(store.root, config.relations))
    _ = done | beam.Map(lambda text: log_line(STEP.name, text))
    state = pipeline.run().wait_until_finish()
    if state != PipelineState.DONE:
        raise TransientError(f"{STEP.name}: the Beam runner ended in state {state}; see its own log")
    made = [logs.day for logs in waiting]
    lost = [
        str(logs.day) for logs in waiting if find_current(store.edges(logs.day), EdgesManifest, logs.origin) is None
    ]
    if lost:
        raise RuntimeError(f"{STEP.name}: the Beam runner returned without writing {lost}; use another runner")
    return made


def main(store_uri: str, config_uri: str, through: str) -> None:
    """`collect_edges` of the window until a day, under a run's configuration."""
    dataset, edges = _sections(config_uri)
    collect_edges(store_uri, dataset, edges, edges.window(dataset, date.fromisoformat(through)))


def main_days(store_uri: str, config_uri: str, days: list[date]) -> None:
    """`collect_edges` of some days likewise."""
    collect_edges(store_uri, *_sections(config_uri), days)


def _sections(config_uri: str) -> tuple[DatasetConfig, EdgesConfig]:
    config = ResolvedConfig.open(config_uri)
    return config.section(DatasetConfig, "dataset"), config.section(EdgesConfig, "pretrain", "edges")
