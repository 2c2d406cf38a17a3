"""Engagement of entities per day, and their smoothed rates up to the day before an impression."""

from __future__ import annotations

from datetime import date
from typing import Protocol

import numpy as np
import pyarrow as pa

from components.common.days import MICROSECONDS_PER_DAY, microseconds
from components.features.events import IMPRESSIONS
from components.features.feature_kinds import EngagementFeatures
from components.features.feature_list import ENGAGEMENT_RATES, engagement_name, volume_name
from components.features.hashing import MISSING, combine_hashes
from components.features.history import EventIndex
from components.features.log_events import Events

COUNTS = ("impressions", *ENGAGEMENT_RATES)
SCHEMA = pa.schema(
    [("entity", pa.int32()), ("value", pa.uint64()), ("day", pa.int32()), *((name, pa.int64()) for name in COUNTS)]
)
_EVERYTHING = np.uint64(1)


def count_engagement(log_name: str, events: Events, entities: tuple[str, ...]) -> pa.Table:
    """Count one log file's events by entity, value and day; rows of `SCHEMA`."""
    days = (events.times // MICROSECONDS_PER_DAY).astype(np.int32)
    parts = []
    for number, entity in enumerate(entities):
        known = events.known(entity)
        zeros = np.zeros(int(known.sum()), dtype=np.int64)
        columns = {"value": events.hashed(entity)[known], "day": days[known]}
        columns |= {"entity": np.full(len(zeros), number, dtype=np.int32), **dict.fromkeys(COUNTS, zeros)}
        if log_name == IMPRESSIONS:
            columns["impressions"] = zeros + 1
        else:
            columns |= {name: events.where("action_type", name)[known].astype(np.int64) for name in ENGAGEMENT_RATES}
        parts.append(pa.table({name: columns[name] for name in SCHEMA.names}, schema=SCHEMA))
    return merge_engagement(parts)


def merge_engagement(parts: list[pa.Table]) -> pa.Table:
    """Add up counts of equal entity, value and day; sorted, so that any order of merging gives equal bytes."""
    if not parts:
        return SCHEMA.empty_table()
    keys = ["entity", "value", "day"]
    sums = pa.concat_tables(parts).group_by(keys, use_threads=False).aggregate([(name, "sum") for name in COUNTS])
    merged = pa.table({name: sums[name if name in keys else f"{name}_sum"] for name in SCHEMA.names})
    return merged.sort_by([(name, "ascending") for name in keys]).cast(SCHEMA).combine_chunks()


def on_one_day(counts: pa.Table, day: date) -> pa.Table:
    """The counts of some days as if all were of one."""
    ordinal = microseconds(day) // MICROSECONDS_PER_DAY
    days = pa.array(np.full(len(counts), ordinal, dtype=np.int32))
    return counts.set_column(SCHEMA.get_field_index("day"), "day", days).cast(SCHEMA)


class EntityRows(Protocol):
    """What engagement is looked up for: `Events`, or anything else of n moments with entities."""

    @property
    def times(self) -> np.ndarray:
        """Microseconds since the epoch, int64, shape (n,)."""

    def hashed(self, column: str) -> np.ndarray:
        """A hashed entity, uint64, shape (n,)."""


def engagement_columns(
    impressions: EntityRows, engagement: pa.Table, features: EngagementFeatures
) -> dict[str, np.ndarray]:
    """Dense columns, float32, shape (n,), from the `window_days` days before each impression's own day.

    rate = (actions + smoothing * overall_rate) / (impressions + smoothing), with the overall rate of the same days.
    """
    days = impressions.times // MICROSECONDS_PER_DAY
    number_of = engagement["entity"].to_numpy()
    columns = {}
    for entity in features.entities:
        chosen = number_of == features.entities.index(entity)
        values, moments = engagement["value"].to_numpy()[chosen], engagement["day"].to_numpy()[chosen].astype(np.int64)
        counts = np.stack([engagement[name].to_numpy()[chosen] for name in COUNTS], axis=1)
        # Each value and day is looked up once, however many impressions share it.
        asked = pa.array(combine_hashes(impressions.hashed(entity), days.view(np.uint64))).dictionary_encode()
        pair_of = asked.indices.to_numpy()
        first_row = np.zeros(len(asked.dictionary), dtype=np.int64)
        first_row[pair_of[::-1]] = np.arange(len(pair_of))[::-1]
        keys, on = impressions.hashed(entity)[first_row], days[first_row]
        own = _window_sums(values, moments, counts, keys, on, features.window_days)
        own = np.where((keys == MISSING)[:, None], 0, own)
        everything = np.full(len(values), _EVERYTHING)
        unique_days, inverse = np.unique(on, return_inverse=True)
        overall = _window_sums(
            everything, moments, counts, np.full(len(unique_days), _EVERYTHING), unique_days, features.window_days
        )[inverse]
        columns[volume_name(entity)] = own[:, 0].astype(np.float32)[pair_of]
        for position, rate in enumerate(ENGAGEMENT_RATES, start=1):
            overall_rate = overall[:, position] / np.maximum(overall[:, 0], 1)
            smoothed = (own[:, position] + features.smoothing * overall_rate) / (own[:, 0] + features.smoothing)
            columns[engagement_name(entity, rate)] = smoothed.astype(np.float32)[pair_of]
    return columns


def _window_sums(
    values: np.ndarray, moments: np.ndarray, counts: np.ndarray, keys: np.ndarray, days: np.ndarray, window_days: int
) -> np.ndarray:
    """Sums of `counts` over each key's days in [day - window_days, day), int64, shape (n, columns)."""
    index = EventIndex(values, moments)
    running = np.concatenate([np.zeros((1, counts.shape[1]), dtype=np.int64), np.cumsum(counts[index.order], axis=0)])
    return running[index.stops(keys, days)] - running[index.stops(keys, days - window_days)]
