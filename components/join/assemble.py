"""From one shard's impressions and actions to labelled examples."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date

import numpy as np
import pyarrow as pa

from components.common.days import MICROSECONDS_PER_DAY, microseconds
from components.common.events import ACTION_TYPES, DatasetConfig
from components.common.examples import NEGATIVE_KEPT, USER_HASH, example_schema
from components.common.features import (
    NUM_GAP_BUCKETS,
    FeatureConfig,
    count_name,
    recency_name,
    sequence_column,
)
from components.common.hashing import combine_hashes, feature_ids, hash_identifiers
from components.join.attribution import Events, attribute, label
from components.join.config import JoinConfig
from components.join.engagement import engagement_columns
from components.join.history import EventIndex, age_of_last, count_within, latest_events
from components.join.sampling import kept_as_negative


@dataclass(frozen=True)
class JoinJob:
    """One run of the join.

    Attributes:
        dataset: The log contract and attribution.
        features: The feature list.
        config: Sampling and sharding.
        first_day: First day of examples.
        last_day: Last day of examples.
        as_of: Only events before the start of this day are seen.
    """

    dataset: DatasetConfig
    features: FeatureConfig
    config: JoinConfig
    first_day: date
    last_day: date
    as_of: date


@dataclass(frozen=True)
class ShardResult:
    """Examples of one shard, all impressions of the job's days, with what was counted on the way."""

    examples: pa.Table
    counts: dict[str, int]


def join_shard(impressions_table: pa.Table, actions_table: pa.Table, engagement: pa.Table, job: JoinJob) -> ShardResult:
    """Label one shard's impressions and compute their features.

    Args:
        impressions_table: Impressions of the shard's users, also before and after the job's days.
        actions_table: Actions of the same users.
        engagement: Daily counts of all users (`engagement.SCHEMA`).
        job: What to make.

    Returns:
        One example for every impression of the job's days, not down-sampled, in order of the impression's hash, and
        counts that reconcile: `actions` = `actions_attributed` + `actions_unattributed` + `actions_duplicate`.
    """
    impressions, duplicate_impressions = _first_of_each(Events.of(impressions_table), "impression_id")
    actions, duplicate_actions = _first_of_each(Events.of(actions_table), "action_id")
    credited = attribute(impressions, actions, job.dataset)
    labels = label(len(impressions.times), actions, credited, job.dataset)

    start, end = microseconds(job.first_day), microseconds(job.last_day) + MICROSECONDS_PER_DAY
    wanted = np.flatnonzero((impressions.times >= start) & (impressions.times < end))
    identity = hash_identifiers(impressions.table["impression_id"].take(pa.array(wanted)))
    wanted = wanted[np.argsort(identity, kind="stable")]
    identity = np.sort(identity, kind="stable")
    rows = Events.of(impressions.table.take(pa.array(wanted)))

    columns: dict[str, np.ndarray | pa.Array] = {
        "impression_id": rows.table["impression_id"],
        "timestamp": rows.table["timestamp"],
        USER_HASH: feature_ids(rows.users),
        **_categorical_columns(rows, job.features),
        **{name: np.nan_to_num(rows.number(name)).astype(np.float32) for name in job.features.numbers},
        **_count_columns(rows, actions, job.features),
        **engagement_columns(rows, engagement, job.dataset.entities, job.features.engagement),
        **_sequence_columns(rows, actions, job.features),
        **{name: values[wanted] for name, values in vars(labels).items()},
        "label_mature": rows.times + job.dataset.maturity_days * MICROSECONDS_PER_DAY <= microseconds(job.as_of),
        NEGATIVE_KEPT: kept_as_negative(identity, job.config.negative_keep_rate, job.config.salt),
    }
    schema = example_schema(job.features, rows.table.schema.field("impression_id").type)
    examples = pa.table({name: columns[name] for name in schema.names}, schema=schema)
    in_days = (actions.times >= start) & (actions.times < end)
    counts = {
        "impressions": len(wanted) + _within(duplicate_impressions, start, end),
        "impressions_duplicate": _within(duplicate_impressions, start, end),
        "actions": int(in_days.sum()) + _within(duplicate_actions, start, end),
        "actions_attributed": int((in_days & (credited >= 0)).sum()),
        "actions_unattributed": int((in_days & (credited < 0)).sum()),
        "actions_duplicate": _within(duplicate_actions, start, end),
    }
    return ShardResult(examples, counts)


def _within(times: np.ndarray, start: int, end: int) -> int:
    return int(((times >= start) & (times < end)).sum())


def _first_of_each(events: Events, identifier: str) -> tuple[Events, np.ndarray]:
    """The earliest event of each identifier, and the moments of the others."""
    identity = events.hashed(identifier)
    order = np.lexsort((events.times, identity))
    repeated = np.zeros(len(identity), dtype=bool)
    repeated[order[1:]] = identity[order[1:]] == identity[order[:-1]]
    if not repeated.any():
        return events, np.zeros(0, dtype=np.int64)
    kept = Events.of(events.table.filter(pa.array(~repeated)))
    return kept, events.times[repeated]


def _categorical_columns(rows: Events, features: FeatureConfig) -> dict[str, np.ndarray]:
    seconds = rows.times // 1_000_000
    clock = {"hour_of_day": seconds // 3600 % 24, "day_of_week": (seconds // 86_400 + 3) % 7}
    return {
        name: clock[name] if name in clock else feature_ids(rows.hashed(name)) for name in features.categorical_names
    }


def _count_columns(rows: Events, actions: Events, features: FeatureConfig) -> dict[str, np.ndarray]:
    horizon = features.history_days * MICROSECONDS_PER_DAY
    columns = {}
    for entity in features.counts.entities:
        keys = combine_hashes(rows.users, rows.hashed(entity))
        for action_type in features.counts.action_types:
            chosen = actions.where("action_type", action_type) & actions.table[entity].is_valid().to_numpy()
            times = actions.times[chosen]
            index = EventIndex(combine_hashes(actions.users[chosen], actions.hashed(entity)[chosen]), times)
            for days in features.counts.windows_days:
                counted = count_within(index, keys, rows.times, days * MICROSECONDS_PER_DAY)
                columns[count_name(entity, action_type, days)] = counted.astype(np.float32)
            age = age_of_last(index, times, keys, rows.times, horizon)
            columns[recency_name(entity, action_type)] = (age / MICROSECONDS_PER_DAY).astype(np.float32)
    return columns


def _sequence_columns(rows: Events, actions: Events, features: FeatureConfig) -> dict[str, pa.Array]:
    chosen = np.isin(_action_codes(actions), [ACTION_TYPES.index(name) for name in features.sequence.action_types])
    used = Events(actions.table.filter(pa.array(chosen)), actions.times[chosen], actions.users[chosen])
    index = EventIndex(used.users, used.times, used.hashed("action_id"))
    horizon = features.history_days * MICROSECONDS_PER_DAY
    earlier = latest_events(index, used.times, rows.users, rows.times, features.sequence.length, horizon)
    ids = {entity: feature_ids(used.hashed(entity))[earlier.events] for entity in features.sequence.entities}
    ids["action_type"] = _action_codes(used)[earlier.events]
    ids["gap"] = np.log2(1 + earlier.ages / 1e6).astype(np.int64).clip(max=NUM_GAP_BUCKETS - 1)
    offsets = pa.array(earlier.offsets.astype(np.int32))
    return {
        sequence_column(name): pa.ListArray.from_arrays(offsets, pa.array(ids[name].astype(np.int64)))
        for name in features.sequence_names
    }


def _action_codes(actions: Events) -> np.ndarray:
    codes = np.zeros(len(actions.times), dtype=np.int64)
    for code, name in enumerate(ACTION_TYPES):
        codes[actions.where("action_type", name)] = code
    return codes
