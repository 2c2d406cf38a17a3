"""Which impression each action is credited to."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from components.common.days import MICROSECONDS_PER_DAY
from components.common.events import DatasetConfig
from components.common.hashing import combine_hashes, hash_identifiers
from components.join.history import EventIndex

UNATTRIBUTED = -1


@dataclass(frozen=True)
class Events:
    """One shard's log columns as arrays; `table` keeps the rest.

    Attributes:
        table: Impressions or actions.
        times: Microseconds since the epoch, int64.
        users: Hashed users, uint64.
    """

    table: pa.Table
    times: np.ndarray
    users: np.ndarray

    @classmethod
    def of(cls, table: pa.Table) -> Events:
        """Extract the columns that every computation needs."""
        table = table.combine_chunks()
        times = table["timestamp"].cast(pa.int64()).to_numpy()
        return cls(table, times, hash_identifiers(table["user_id"]))

    def hashed(self, column: str) -> np.ndarray:
        """A hashed identifier column, uint64."""
        return hash_identifiers(self.table[column])

    def where(self, column: str, value: str) -> np.ndarray:
        """Rows whose text column equals a value, bool."""
        return pc.fill_null(pc.equal(self.table[column], value), False).to_numpy()

    def number(self, column: str) -> np.ndarray:
        """A numeric column with nulls as NaN, float64."""
        return self.table[column].cast(pa.float64()).to_numpy()


def attribute(impressions: Events, actions: Events, dataset: DatasetConfig) -> np.ndarray:
    """Credit each action to at most one impression.

    Onsite actions name their impression, which must be of the same user: a click counts within `click_days`, a
    conversion within the click-through window of a click on that impression, else within the view-through window.
    Offsite conversions go to the last clicked impression of the same user and entity within the click-through window,
    else to the last view within the view-through window, else to none. A touch must come strictly before the
    conversion. Among touches at the same moment the one whose item is the action's own
    wins, then the one with the greatest impression id.

    Args:
        impressions: Every impression that may compete for one of the actions.
        actions: Actions of the same users.
        dataset: The windows and entities.

    Returns:
        Row of `impressions` for each action, or `UNATTRIBUTED`; int64, shape (actions,).
    """
    credited = np.full(len(actions.times), UNATTRIBUTED)
    if not len(impressions.times) or not len(actions.times):
        return credited
    named = _named_impression(impressions, actions)
    is_click = actions.where("action_type", "click")
    age = np.where(named >= 0, actions.times - impressions.times[named], -1)
    onsite_click = is_click & (named >= 0) & (age >= 0) & (age <= dataset.click_days * MICROSECONDS_PER_DAY)
    credited[onsite_click] = named[onsite_click]

    click_rows = np.flatnonzero(onsite_click)
    clicks = _Touches(credited[click_rows], actions.times[click_rows], impressions)
    views = _Touches(np.arange(len(impressions.times)), impressions.times, impressions)
    for action_type, rule in dataset.attribution.items():
        through_click = rule.click_through_days * MICROSECONDS_PER_DAY
        through_view = rule.view_through_days * MICROSECONDS_PER_DAY
        of_type = actions.where("action_type", action_type)
        onsite = np.flatnonzero(of_type & (named >= 0))
        own_clicks = EventIndex(clicks.rows.astype(np.uint64), clicks.times)
        last = own_clicks.last_before(named[onsite].astype(np.uint64), actions.times[onsite])
        after_click = (last >= 0) & (actions.times[onsite] - _take(clicks.times, last) <= through_click)
        after_view = (age[onsite] > 0) & (age[onsite] <= through_view)
        credited[onsite] = np.where(after_click | after_view, named[onsite], UNATTRIBUTED)

        offsite = np.flatnonzero(of_type & actions.where("source", "offsite"))
        by_click = clicks.last_touch(rule.entity, actions, offsite, through_click)
        by_view = views.last_touch(rule.entity, actions, offsite, through_view)
        credited[offsite] = np.where(by_click >= 0, by_click, by_view)
    return credited


def _take(values: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """`values[rows]`, with anything for rows of -1."""
    return values[rows] if len(values) else np.zeros(len(rows), dtype=values.dtype)


def _named_impression(impressions: Events, actions: Events) -> np.ndarray:
    """The impression that each onsite action names, or -1; compares the identifiers themselves, not their hashes."""
    onsite = actions.where("source", "onsite")
    if pa.types.is_null(actions.table.schema.field("impression_id").type):
        return np.full(len(actions.times), UNATTRIBUTED)
    position = pc.index_in(actions.table["impression_id"], value_set=impressions.table["impression_id"])
    named = pc.fill_null(position, UNATTRIBUTED).to_numpy().astype(np.int64)
    valid = onsite & actions.table["impression_id"].is_valid().to_numpy() & (impressions.users[named] == actions.users)
    return np.where(valid, named, UNATTRIBUTED)


@dataclass(frozen=True)
class _Touches:
    """Clicks or views that conversions may be credited to: their impressions and moments."""

    rows: np.ndarray
    times: np.ndarray
    impressions: Events

    def last_touch(self, entity: str, actions: Events, chosen: np.ndarray, window: int) -> np.ndarray:
        """The impression of the last touch of each chosen action within the window, or -1."""
        if not len(self.rows) or not len(chosen):
            return np.full(len(chosen), UNATTRIBUTED)
        entity_key = self._keys(entity)
        item_key = combine_hashes(entity_key, self.impressions.hashed("item_id")[self.rows])
        action_key = combine_hashes(actions.users[chosen], actions.hashed(entity)[chosen])
        times = actions.times[chosen]
        has_entity = actions.table[entity].is_valid().to_numpy()[chosen]
        tie_break = _ranks(self.impressions.table["impression_id"])[self.rows]
        touch = EventIndex(entity_key, self.times, tie_break).last_before(action_key, times)
        same_item = EventIndex(item_key, self.times, tie_break).last_before(
            combine_hashes(action_key, actions.hashed("item_id")[chosen]), times
        )
        tied = (same_item >= 0) & (self.times[same_item] == self.times[touch])
        touch = np.where(tied, same_item, touch)
        credited = (touch >= 0) & has_entity & (times - self.times[touch] <= window)
        return np.where(credited, self.rows[touch], UNATTRIBUTED)

    def _keys(self, entity: str) -> np.ndarray:
        return combine_hashes(self.impressions.users[self.rows], self.impressions.hashed(entity)[self.rows])


def _ranks(column: pa.ChunkedArray) -> np.ndarray:
    """Each value's place in the sorted order, int64."""
    ranks = np.empty(len(column), dtype=np.int64)
    ranks[pc.sort_indices(column).to_numpy()] = np.arange(len(column))
    return ranks


@dataclass(frozen=True)
class Labels:
    """Labels of impressions, each of shape (impressions,)."""

    clicked: np.ndarray
    good_clicked: np.ndarray
    add_to_carts: np.ndarray
    checkouts: np.ndarray
    conversion_value: np.ndarray


def label(num_impressions: int, actions: Events, credited: np.ndarray, dataset: DatasetConfig) -> Labels:
    """Count the credited actions of each impression by type; values of checkouts are summed."""

    def count(chosen: np.ndarray, weights: np.ndarray | None = None) -> np.ndarray:
        rows = credited[chosen]
        return np.bincount(rows, None if weights is None else weights[chosen], minlength=num_impressions)

    attributed = credited >= 0
    clicks = attributed & actions.where("action_type", "click")
    checkouts = attributed & actions.where("action_type", "checkout")
    strong = np.nan_to_num(actions.number(dataset.good_click.column), nan=-np.inf) >= dataset.good_click.at_least
    limit = np.iinfo(np.int16).max
    return Labels(
        clicked=(count(clicks) > 0).astype(np.int8),
        good_clicked=(count(clicks & strong) > 0).astype(np.int8),
        add_to_carts=count(attributed & actions.where("action_type", "add_to_cart")).clip(max=limit).astype(np.int16),
        checkouts=count(checkouts).clip(max=limit).astype(np.int16),
        conversion_value=count(checkouts, np.nan_to_num(actions.number("value"))).astype(np.float64),
    )
