"""Engagement of entities per day, and their smoothed rates up to the day before an impression."""

from __future__ import annotations

from dataclasses import dataclass
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


@dataclass(frozen=True)
class EngagementIndex:
    """Daily counts of entities, sorted once for any number of look-ups.

    Attributes:
        features: What is looked up.
        of_entities: By entity.
    """

    features: EngagementFeatures
    of_entities: dict[str, _OfEntity]

    @classmethod
    def of(cls, engagement: pa.Table, features: EngagementFeatures) -> EngagementIndex:
        """Index rows of `SCHEMA`, whose entities are numbered as those of `features`."""
        entities = features.entities
        return cls(features, {name: _OfEntity.of(engagement, number) for number, name in enumerate(entities)})

    def columns(self, impressions: EntityRows) -> dict[str, np.ndarray]:
        """Dense columns, float32, shape (n,), from the `window_days` days before each impression's own day.

        rate = (actions + smoothing * overall_rate) / (impressions + smoothing), with the overall rate of the same days.
        """
        days, smoothing = impressions.times // MICROSECONDS_PER_DAY, self.features.smoothing
        columns = {}
        for entity, counted in self.of_entities.items():
            # Each value and day is looked up once, however many impressions share it.
            asked = pa.array(combine_hashes(impressions.hashed(entity), days.view(np.uint64))).dictionary_encode()
            pair_of = asked.indices.to_numpy()
            first_row = np.zeros(len(asked.dictionary), dtype=np.int64)
            first_row[pair_of[::-1]] = np.arange(len(pair_of))[::-1]
            keys, on = impressions.hashed(entity)[first_row], days[first_row]
            own = np.where((keys == MISSING)[:, None], 0, counted.sums(keys, on, self.features.window_days))
            overall = counted.overall(on, self.features.window_days)
            columns[volume_name(entity)] = own[:, 0].astype(np.float32)[pair_of]
            for position, rate in enumerate(ENGAGEMENT_RATES, start=1):
                overall_rate = overall[:, position] / np.maximum(overall[:, 0], 1)
                smoothed = (own[:, position] + smoothing * overall_rate) / (own[:, 0] + smoothing)
                columns[engagement_name(entity, rate)] = smoothed.astype(np.float32)[pair_of]
        return columns


@dataclass(frozen=True)
class _OfEntity:
    """Counts of one entity, m rows of value and day, as running sums.

    Attributes:
        index: Of the rows by value and day.
        running: Sums of `COUNTS` of the rows before each in the index's order, int64, shape (m + 1, counts).
        days: Those that have any, ascending, int64.
        running_days: As `running`, of days.
    """

    index: EventIndex
    running: np.ndarray
    days: np.ndarray
    running_days: np.ndarray

    @classmethod
    def of(cls, engagement: pa.Table, number: int) -> _OfEntity:
        chosen = engagement["entity"].to_numpy() == number
        moments = engagement["day"].to_numpy()[chosen].astype(np.int64)
        counts = np.stack([engagement[name].to_numpy()[chosen] for name in COUNTS], axis=1)
        index = EventIndex(engagement["value"].to_numpy()[chosen], moments)
        days, day_of = np.unique(moments, return_inverse=True)
        by_day = [np.bincount(day_of, column, len(days)).astype(np.int64) for column in counts.T]
        return cls(index, _running(counts[index.order]), days, _running(np.stack(by_day, axis=1)))

    def sums(self, keys: np.ndarray, days: np.ndarray, window_days: int) -> np.ndarray:
        """Of each key in [day - window_days, day), int64, shape (n, counts)."""
        return self.running[self.index.stops(keys, days)] - self.running[self.index.stops(keys, days - window_days)]

    def overall(self, days: np.ndarray, window_days: int) -> np.ndarray:
        """Of all keys, likewise."""
        stops = (np.searchsorted(self.days, moments) for moments in (days, days - window_days))
        until, before = (self.running_days[stop] for stop in stops)
        return until - before


def _running(counts: np.ndarray) -> np.ndarray:
    return np.concatenate([np.zeros((1, counts.shape[1]), dtype=np.int64), np.cumsum(counts, axis=0)])
