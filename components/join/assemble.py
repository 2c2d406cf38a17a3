"""From one shard's impressions and actions to labelled examples."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date

import numpy as np
import pyarrow as pa

from components.common.days import MICROSECONDS_PER_DAY, microseconds
from components.features.engagement import EngagementIndex
from components.features.events import ACTIONS, IMPRESSIONS, DatasetConfig
from components.features.example_columns import (
    categorical_columns,
    count_columns,
    list_columns,
    number_columns,
    sequence_columns,
)
from components.features.examples import EVALUATION, NEGATIVE_KEPT, TRAINING, USER_HASH, example_schema, labelled_schema
from components.features.feature_list import FeatureConfig
from components.features.hashed_actions import HashedActions
from components.features.hashing import feature_ids, is_in
from components.features.log_events import Events
from components.join.attribution import Attribution, label
from components.join.config import JoinConfig
from components.join.sampling import kept_as_negative

# What names an event of a log.
IDENTIFIERS = {IMPRESSIONS: "impression_id", ACTIONS: "action_id"}
_ODD = np.uint64(0x9E3779B97F4A7C15)


@dataclass(frozen=True)
class JoinJob:
    """One run of the join.

    Attributes:
        dataset: The log contract and attribution.
        features: The feature list; without one, examples are the impressions' own columns with labels.
        config: Sampling and sharding.
        first_day: First day of examples.
        last_day: Last day of examples.
        as_of: Only events before the start of this day are seen.
        evaluate_from: From this day on, impressions that sampling drops are made into examples as well.
        training_split: Where training examples go: `EARLY` for a day whose labels can still change.
    """

    dataset: DatasetConfig
    features: FeatureConfig | None
    config: JoinConfig
    first_day: date
    last_day: date
    as_of: date
    evaluate_from: date
    training_split: str = TRAINING

    @property
    def history_days(self) -> int:
        """Log days before an impression's day that its example depends on."""
        return self.features.history_days if self.features else 0

    def splits(self, day: date) -> tuple[str, ...]:
        """The splits that a day's examples are written to, that of training last."""
        return (EVALUATION, self.training_split) if day >= self.evaluate_from else (self.training_split,)


@dataclass(frozen=True)
class Seen:
    """Events of one day that reached the join, and how many of them repeat an identifier."""

    impressions: int = 0
    repeated_impressions: int = 0
    actions: int = 0
    repeated_actions: int = 0

    def __add__(self, other: Seen) -> Seen:
        """The counts of both together."""
        return Seen(
            self.impressions + other.impressions,
            self.repeated_impressions + other.repeated_impressions,
            self.actions + other.actions,
            self.repeated_actions + other.repeated_actions,
        )


@dataclass(frozen=True)
class ShardResult:
    """Examples of one shard and what was counted on the way.

    Attributes:
        examples: In the order of the log.
        counts: By name, over the job's days.
        by_day: What was seen on each day.
    """

    examples: pa.Table
    counts: dict[str, int]
    by_day: dict[date, Seen]


@dataclass(frozen=True)
class Past:
    """What features know beside the logs that are joined.

    Attributes:
        actions: Of the shard's users, on days that were summarised.
        days: Those days; of them the logs' own actions do not count.
        engagement: Counts of all users by day.
    """

    actions: HashedActions
    days: frozenset[date]
    engagement: EngagementIndex


def join_shard(impressions_table: pa.Table, actions_table: pa.Table, past: Past | None, job: JoinJob) -> ShardResult:
    """Label one shard's impressions, sample them and compute the features of those that are left.

    Args:
        impressions_table: Impressions of the shard's users, also before and after the job's days.
        actions_table: Actions of the same users.
        past: What features need beside these; None without features.
        job: What to make.

    Returns:
        One example for every impression of the job's days that sampling keeps, or whose day is evaluated, in the
        order of the log, and counts that reconcile: `impressions` = `impressions_kept` + `impressions_sampled_out` +
        `impressions_duplicate`, and `actions` = `actions_attributed` + `actions_unattributed` + `actions_duplicate`;
        and why actions are not attributed, `unattributed_*`.
    """
    shown, acted = _Log.of(impressions_table, IMPRESSIONS), _Log.of(actions_table, ACTIONS)
    impressions, actions = shown.events, acted.events
    attribution = Attribution(impressions, actions, job.dataset)
    labels = label(len(impressions), actions, attribution.credited, job.dataset)

    in_days = shown.in_days(job)
    as_negative = kept_as_negative(impressions.hashed("impression_id"), job.config.negative_keep_rate, job.config.salt)
    is_kept = labels.positive | as_negative
    wanted = np.flatnonzero(in_days & (is_kept | (impressions.times >= microseconds(job.evaluate_from))))
    rows = impressions.take(wanted)
    columns: dict[str, np.ndarray | pa.Array] = {
        **({} if job.features is None or past is None else _feature_columns(rows, actions, past, job.features)),
        **{name: values[wanted] for name, values in vars(labels).items()},
        "label_mature": rows.times + job.dataset.maturity_days * MICROSECONDS_PER_DAY <= microseconds(job.as_of),
        NEGATIVE_KEPT: as_negative[wanted],
    }
    own = {column.name: rows.table[column.name] for column in job.dataset.columns(IMPRESSIONS)}
    schema = (
        labelled_schema(rows.table.schema)
        if job.features is None
        else example_schema(job.features, rows.table.schema.field("impression_id").type)
    )
    examples = pa.table({name: {**own, **columns}[name] for name in schema.names}, schema=schema)
    is_credited, acted_in_days = attribution.credited >= 0, acted.in_days(job)
    counts = shown.counts(job, {"kept": is_kept, "sampled_out": ~is_kept})
    counts |= acted.counts(job, {"attributed": is_credited, "unattributed": ~is_credited})
    for reason, rows_of in attribution.why_unattributed().items():
        counts[f"unattributed_{reason}"] = int((acted_in_days & rows_of).sum())
    days = job.dataset.open_days(job.first_day, job.last_day)
    return ShardResult(examples, counts, {day: Seen(*shown.on(day), *acted.on(day)) for day in days})


@dataclass(frozen=True)
class _Log:
    """One log of a shard without repeats.

    Attributes:
        name: Which.
        events: Those that repeat no other.
        repeated: Moments of those that do, int64.
    """

    name: str
    events: Events
    repeated: np.ndarray

    @classmethod
    def of(cls, table: pa.Table, name: str) -> _Log:
        events = Events.of(table)
        repeats = is_repeated(events, name)
        return cls(name, events.take(~repeats) if repeats.any() else events, events.times[repeats])

    def in_days(self, job: JoinJob) -> np.ndarray:
        """Events of the job's days, bool, shape (events,)."""
        return _within(self.events.times, job.first_day, job.last_day)

    def counts(self, job: JoinJob, parts: dict[str, np.ndarray]) -> dict[str, int]:
        """Events of the job's days with repeats, those of them in each part, bool, shape (events,), and the repeats."""
        in_days, repeated = self.in_days(job), int(_within(self.repeated, job.first_day, job.last_day).sum())
        counts = {f"{self.name}_{part}": int((in_days & rows).sum()) for part, rows in parts.items()}
        return {self.name: int(in_days.sum()) + repeated, **counts, f"{self.name}_duplicate": repeated}

    def on(self, day: date) -> tuple[int, int]:
        """Events of a day with repeats, and the repeats."""
        events, repeated = (int(_within(times, day, day).sum()) for times in (self.events.times, self.repeated))
        return events + repeated, repeated


def _within(times: np.ndarray, first: date, last: date) -> np.ndarray:
    return (times >= microseconds(first)) & (times < microseconds(last) + MICROSECONDS_PER_DAY)


def is_repeated(events: Events, log_name: str) -> np.ndarray:
    """Events whose id their user used earlier on their day or on the day before, bool, shape (n,).

    Looking back further would make the verdict depend on how many days a run reads, and looking at other users' ids on
    how users are spread over shards.
    """
    # Cheaper than `combine_hashes`, and both are hashes already.
    identity, times = events.users * _ODD + events.hashed(IDENTIFIERS[log_name]), events.times
    repeats = np.zeros(len(identity), dtype=bool)
    in_order = np.sort(identity)
    if not (in_order[1:] == in_order[:-1]).any():
        return repeats
    order = np.lexsort((times, identity))
    later, earlier = order[1:], order[:-1]
    since = (times[later] // MICROSECONDS_PER_DAY - 1) * MICROSECONDS_PER_DAY
    repeats[later] = (identity[later] == identity[earlier]) & (times[earlier] >= since)
    return repeats


def _feature_columns(
    rows: Events, actions: Events, past: Past, features: FeatureConfig
) -> dict[str, np.ndarray | pa.Array]:
    of_days = [microseconds(day) // MICROSECONDS_PER_DAY for day in past.days]
    recent = HashedActions.of(actions, features)
    recent = recent.take(~np.isin(recent.times // MICROSECONDS_PER_DAY, of_days))
    # Only the users of examples are looked at (a semi-join), which leaves fewer actions to sort.
    users = np.unique(rows.users)
    acted = HashedActions.together([part.take(is_in(part.users, users)) for part in (past.actions, recent)])
    return {
        USER_HASH: feature_ids(rows.users),
        **categorical_columns(rows, features),
        **number_columns(rows, features),
        **list_columns(rows, features),
        **count_columns(rows, acted, features),
        **past.engagement.columns(rows),
        **sequence_columns(rows, acted, features),
    }
