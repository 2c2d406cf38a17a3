"""Features of an impression from the logs' raw values, once for the join and for servers."""

from __future__ import annotations

from typing import Protocol

import numpy as np
import pyarrow as pa

from components.common.days import MICROSECONDS_PER_DAY
from components.features.events import ACTION_TYPES
from components.features.feature_list import (
    CLOCK_FEATURES,
    NUM_GAP_BUCKETS,
    FeatureConfig,
    count_name,
    recency_name,
    sequence_column,
)
from components.features.hashed_actions import HashedActions
from components.features.hashing import combine_hashes, feature_ids, hash_identifiers
from components.features.history import EventIndex, age_of_last, count_within, latest_events


class ImpressionRows(Protocol):
    """What features read of n impressions: `Events`, or what a request carries."""

    @property
    def times(self) -> np.ndarray:
        """Microseconds since the epoch, int64, shape (n,)."""

    @property
    def users(self) -> np.ndarray:
        """Hashed users, uint64, shape (n,)."""

    def hashed(self, column: str) -> np.ndarray:
        """A hashed identifier column, uint64, shape (n,)."""

    def number(self, column: str) -> np.ndarray:
        """A numeric column with nulls as NaN, float64, shape (n,)."""


def identifier_of(name: str, value: int | str) -> int:
    """What a categorical feature's column holds for a value of the logs, or of the clock."""
    return int(value) if name in CLOCK_FEATURES else int(feature_ids(hash_identifiers(pa.array([value])))[0])


def categorical_columns(rows: ImpressionRows, features: FeatureConfig) -> dict[str, np.ndarray]:
    """Hashed identifiers, and what the clock says, int64, shape (n,) each."""
    seconds = rows.times // 1_000_000
    clock = {"hour_of_day": seconds // 3600 % 24, "day_of_week": (seconds // 86_400 + 3) % 7}
    return {
        name: clock[name] if name in clock else feature_ids(rows.hashed(name)) for name in features.categorical_names
    }


def number_columns(rows: ImpressionRows, features: FeatureConfig) -> dict[str, np.ndarray]:
    """Numbers of the context as they are, 0 where one is absent; float32, shape (n,) each."""
    return {name: np.nan_to_num(rows.number(name)).astype(np.float32) for name in features.numbers}


def count_columns(rows: ImpressionRows, actions: HashedActions, features: FeatureConfig) -> dict[str, np.ndarray]:
    """How often, and how long ago, each row's user acted on its own entities before it; float32, shape (n,) each."""
    horizon = features.history_days * MICROSECONDS_PER_DAY
    columns = {}
    for entity in features.counts.entities:
        keys = combine_hashes(rows.users, rows.hashed(entity))
        for action_type in features.counts.action_types:
            chosen = actions.take(actions.of_type(action_type) & actions.known(entity))
            times = chosen.times
            index = EventIndex(combine_hashes(chosen.users, chosen.entities[entity]), times)
            for days in features.counts.windows_days:
                counted = count_within(index, keys, rows.times, days * MICROSECONDS_PER_DAY)
                columns[count_name(entity, action_type, days)] = counted.astype(np.float32)
            age = age_of_last(index, times, keys, rows.times, horizon)
            columns[recency_name(entity, action_type)] = (age / MICROSECONDS_PER_DAY).astype(np.float32)
    return columns


def sequence_columns(rows: ImpressionRows, actions: HashedActions, features: FeatureConfig) -> dict[str, pa.Array]:
    """Ids of each row's user's last actions before it, latest first; lists of int64, n of them each."""
    used = actions.take(np.isin(actions.codes, [ACTION_TYPES.index(name) for name in features.sequence.action_types]))
    index = EventIndex(used.users, used.times, used.identifiers)
    horizon = features.history_days * MICROSECONDS_PER_DAY
    earlier = latest_events(index, used.times, rows.users, rows.times, features.sequence.length, horizon)
    ids = {entity: feature_ids(used.entities[entity])[earlier.events] for entity in features.sequence.entities}
    ids["action_type"] = used.codes[earlier.events]
    ids["gap"] = np.log2(1 + earlier.ages / 1e6).astype(np.int64).clip(max=NUM_GAP_BUCKETS - 1)
    offsets = pa.array(earlier.offsets.astype(np.int32))
    return {
        sequence_column(name): pa.ListArray.from_arrays(offsets, pa.array(ids[name].astype(np.int64)))
        for name in features.sequence_names
    }
