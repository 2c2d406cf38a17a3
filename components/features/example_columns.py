"""Features of an impression from the logs' raw values, once for the join and for servers."""

from __future__ import annotations

from typing import Protocol

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from components.common.days import MICROSECONDS_PER_DAY
from components.features.events import ACTION_TYPES
from components.features.feature_list import (
    ANY_ACTION,
    CLOCK_FEATURES,
    NUM_GAP_BUCKETS,
    FeatureConfig,
    absence_name,
    count_name,
    recency_name,
    sequence_column,
    since_last_name,
)
from components.features.hashed_actions import HashedActions
from components.features.hashing import combine_hashes, feature_ids, hash_identifiers, splitmix64
from components.features.history import EventIndex, age_of_last, count_within, latest_events
from components.features.quantiles import number_ids


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

    def lists(self, column: str) -> pa.ListArray:
        """A column of lists, of identifiers or numbers."""


def identifier_of(name: str, value: int | str) -> int:
    """What a categorical feature's column holds for a value of the logs, or of the clock."""
    return int(value) if name in CLOCK_FEATURES else int(feature_ids(hash_identifiers(pa.array([value])))[0])


def categorical_columns(rows: ImpressionRows, features: FeatureConfig) -> dict[str, np.ndarray]:
    """Hashed identifiers, alone or crossed, what the clock says, and ranked numbers; int64, shape (n,) each."""
    seconds = rows.times // 1_000_000
    clock = {"hour_of_day": seconds // 3600 % 24, "day_of_week": (seconds // 86_400 + 3) % 7}
    columns = {}
    for feature in features.categorical:
        if feature.quantiles is not None:
            columns[feature.name] = number_ids(rows.number(feature.quantiles.number))
        elif feature.name in clock:
            columns[feature.name] = clock[feature.name]
        else:
            parts = (splitmix64(clock[name]) if name in clock else rows.hashed(name) for name in feature.identifiers)
            columns[feature.name] = feature_ids(combine_hashes(*parts))
    return columns


def number_columns(rows: ImpressionRows, features: FeatureConfig) -> dict[str, np.ndarray]:
    """Numbers of the context, 0 where one is absent, and whether it is; float32, shape (n,) each."""
    columns = {}
    for number in features.number_features:
        values = rows.number(number.name)
        columns[number.name] = np.nan_to_num(values).astype(np.float32)
        if number.flag_absent:
            columns[absence_name(number.name)] = np.isnan(values).astype(np.float32)
    return columns


def list_columns(rows: ImpressionRows, features: FeatureConfig) -> dict[str, pa.ListArray]:
    """Lists of hashed identifiers, int64, and of weights, float32; empty ones where there is none, n of them each."""
    columns = {}
    for name in features.list_columns:
        lists = rows.lists(name)
        offsets = pa.array(
            np.concatenate([[0], np.cumsum(pc.fill_null(pc.list_value_length(lists), 0))]).astype(np.int32)
        )
        values, is_weights = lists.flatten(), name in {feature.weights for feature in features.lists}
        made = values.cast(pa.float32()) if is_weights else pa.array(feature_ids(hash_identifiers(values)))
        columns[name] = pa.ListArray.from_arrays(offsets, made)
    return columns


def count_columns(rows: ImpressionRows, actions: HashedActions, features: FeatureConfig) -> dict[str, np.ndarray]:
    """How often, and how long ago, each row's user acted before it, on its own entities and at all.

    Returns:
        float32, shape (n,) each.
    """
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
    for action_type in features.since_last:
        chosen = actions if action_type == ANY_ACTION else actions.take(actions.of_type(action_type))
        index = EventIndex(chosen.users, chosen.times)
        age = age_of_last(index, chosen.times, rows.users, rows.times, horizon)
        columns[since_last_name(action_type)] = (age / MICROSECONDS_PER_DAY).astype(np.float32)
    return columns


def sequence_columns(rows: ImpressionRows, actions: HashedActions, features: FeatureConfig) -> dict[str, pa.Array]:
    """Ids of each row's user's last actions before it, latest first; lists of int64, n of them each."""
    is_of_sequence = np.array([name in features.sequence.action_types for name in ACTION_TYPES])
    used = actions.take(is_of_sequence[actions.codes])
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
