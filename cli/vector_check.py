"""What a run would make of the pretrained vectors that are delivered: whose they are, and which cannot be used."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pyarrow as pa

from cli.log_check import Finding
from components.common.errors import InputError
from components.features.events import IMPRESSIONS
from components.features.feature_kinds import VectorFeature
from components.features.hashing import feature_ids, hash_identifiers
from components.features.vectors import type_of
from components.sources.config import FilesSource, SqlSource
from components.sources.log_days import OwnLog
from components.sources.vector_days import DeliveredRows, delivered_days
from pipelines.config import RunConfig

_SAMPLE_ROWS = 100_000
_FEW = 0.5


def vector_findings(config: RunConfig, source: FilesSource | SqlSource) -> Iterator[Finding]:
    """Everything to know of the deliveries of pretrained vectors."""
    for feature in config.features.vectors:
        try:
            yield from _of_feature(config, source, feature)
        except InputError as error:
            yield Finding("stops", str(error))


def _of_feature(config: RunConfig, source: FilesSource | SqlSource, feature: VectorFeature) -> Iterator[Finding]:
    log, first = OwnLog(source, IMPRESSIONS, config.dataset), config.schedule.first_day
    last = log.last_day()
    if last is None:
        return
    folders = delivered_days(feature, config.vectors[feature.name], last)
    newest = max(folders)
    delivered = DeliveredRows.read(feature, config.vectors[feature.name], folders[newest])
    usable = delivered.hashes[delivered.is_used]
    yield Finding(
        "fact" if len(usable) else "stops",
        f"{feature.name}: {len(folders)} deliveries, {min(folders)} to {newest}; {len(usable):,} vectors of {newest} "
        "can be used" + "".join(f", {count:,} not: {reason}" for reason, count in delivered.counts.items()),
    )
    if min(folders) >= first:
        yield Finding(
            "warning",
            f"{feature.name}: impressions until {min(folders)} know no vector: the first delivery is of that day; "
            f"deliver one of before schedule.first_day = {first}, if there was one then",
        )
    asked = _sampled(log, feature.entity)
    logged, is_known = type_of(asked.type), np.isin(feature_ids(hash_identifiers(asked)), usable)
    share = float(is_known.mean()) if len(is_known) else 0.0
    text = f"{feature.name}: {share:.1%} of the impressions have a vector of their {feature.entity}"
    if logged != delivered.id_type and asked.null_count < len(asked):
        wanted = "integer" if logged == "int64" else "string"
        text += f"; ids are {delivered.id_type}, {logged} in the log: say vectors.{feature.name}.type: {wanted}"
        yield Finding("stops", text)
        return
    if share < _FEW:
        text += f"; see whether vectors.{feature.name}.id names the same ids as the log"
    yield Finding("fact" if share >= _FEW else "warning", text)


def _sampled(log: OwnLog, column: str) -> pa.ChunkedArray:
    with log.relation() as relation:
        sql = f"SELECT {relation.projection()} FROM {relation.sql} WHERE {relation.condition} LIMIT {_SAMPLE_ROWS}"
        table: pa.Table = relation.connection.sql(sql).to_arrow_table()
    return table[column]
