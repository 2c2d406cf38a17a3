"""From one shard's impressions and actions to labelled examples."""

from __future__ import annotations

from dataclasses import astuple, dataclass
from datetime import date

import numpy as np
import pyarrow as pa

from components.common.days import MICROSECONDS_PER_DAY, microseconds
from components.features.engagement import engagement_columns
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
from components.features.hashing import combine_hashes, feature_ids, positions_in
from components.features.log_events import Events
from components.join.attribution import attribute, label, why_unattributed
from components.join.config import JoinConfig
from components.join.sampling import kept_as_negative

# What names an event of a log.
IDENTIFIERS = {IMPRESSIONS: "impression_id", ACTIONS: "action_id"}


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
        return Seen(*(a + b for a, b in zip(astuple(self), astuple(other), strict=True)))


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
        engagement: Counts of all users by day (`engagement.SCHEMA`).
    """

    actions: HashedActions
    days: frozenset[date]
    engagement: pa.Table


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
    impressions, duplicate_impressions = _without_repeats(Events.of(impressions_table), IMPRESSIONS)
    actions, duplicate_actions = _without_repeats(Events.of(actions_table), ACTIONS)
    credited = attribute(impressions, actions, job.dataset)
    labels = label(len(impressions), actions, credited, job.dataset)

    start, end = microseconds(job.first_day), microseconds(job.last_day) + MICROSECONDS_PER_DAY
    in_days = (impressions.times >= start) & (impressions.times < end)
    as_negative = kept_as_negative(impressions.hashed("impression_id"), job.config.negative_keep_rate, job.config.salt)
    kept = in_days & (labels.positive | as_negative)
    wanted = np.flatnonzero(kept | (in_days & (impressions.times >= microseconds(job.evaluate_from))))
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
    acted = (actions.times >= start) & (actions.times < end)
    counts = {
        "impressions": int(in_days.sum()) + _within(duplicate_impressions, start, end),
        "impressions_kept": int(kept.sum()),
        "impressions_sampled_out": int((in_days & ~kept).sum()),
        "impressions_duplicate": _within(duplicate_impressions, start, end),
        "actions": int(acted.sum()) + _within(duplicate_actions, start, end),
        "actions_attributed": int((acted & (credited >= 0)).sum()),
        "actions_unattributed": int((acted & (credited < 0)).sum()),
        "actions_duplicate": _within(duplicate_actions, start, end),
    }
    for reason, rows_of in why_unattributed(impressions, actions, credited, job.dataset).items():
        counts[f"unattributed_{reason}"] = int((acted & rows_of).sum())
    by_day = {
        day: Seen(
            _on(day, impressions.times) + _on(day, duplicate_impressions),
            _on(day, duplicate_impressions),
            _on(day, actions.times) + _on(day, duplicate_actions),
            _on(day, duplicate_actions),
        )
        for day in job.dataset.open_days(job.first_day, job.last_day)
    }
    return ShardResult(examples, counts, by_day)


def _on(day: date, times: np.ndarray) -> int:
    return _within(times, microseconds(day), microseconds(day) + MICROSECONDS_PER_DAY)


def _within(times: np.ndarray, start: int, end: int) -> int:
    return int(((times >= start) & (times < end)).sum())


def is_repeated(events: Events, log_name: str) -> np.ndarray:
    """Events whose id their user used earlier on their day or on the day before, bool, shape (n,).

    Looking back further would make the verdict depend on how many days a run reads, and looking at other users' ids on
    how users are spread over shards.
    """
    identity, times = combine_hashes(events.users, events.hashed(IDENTIFIERS[log_name])), events.times
    repeats = np.zeros(len(identity), dtype=bool)
    in_order = np.sort(identity)
    if not (in_order[1:] == in_order[:-1]).any():
        return repeats
    order = np.lexsort((times, identity))
    later, earlier = order[1:], order[:-1]
    since = (times[later] // MICROSECONDS_PER_DAY - 1) * MICROSECONDS_PER_DAY
    repeats[later] = (identity[later] == identity[earlier]) & (times[earlier] >= since)
    return repeats


def _without_repeats(events: Events, log_name: str) -> tuple[Events, np.ndarray]:
    """The events that repeat no other, and the moments of those that do."""
    is_repeat = is_repeated(events, log_name)
    return (events.take(~is_repeat) if is_repeat.any() else events), events.times[is_repeat]


def _feature_columns(
    rows: Events, actions: Events, past: Past, features: FeatureConfig
) -> dict[str, np.ndarray | pa.Array]:
    of_days = [microseconds(day) // MICROSECONDS_PER_DAY for day in past.days]
    recent = HashedActions.of(actions, features)
    recent = recent.take(~np.isin(recent.times // MICROSECONDS_PER_DAY, of_days))
    # Only the users of examples are looked at (a semi-join), which leaves fewer actions to sort.
    users = np.unique(rows.users)
    acted = HashedActions.together([part.take(positions_in(part.users, users) >= 0) for part in (past.actions, recent)])
    return {
        USER_HASH: feature_ids(rows.users),
        **categorical_columns(rows, features),
        **number_columns(rows, features),
        **list_columns(rows, features),
        **count_columns(rows, acted, features),
        **engagement_columns(rows, past.engagement, features.engagement),
        **sequence_columns(rows, acted, features),
    }
