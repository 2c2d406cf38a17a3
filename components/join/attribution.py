"""Which impression each action is credited to."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from components.features.events import DatasetConfig, window_microseconds
from components.features.hashing import combine_hashes, hash_identifiers, positions_in
from components.features.history import EventIndex
from components.features.log_events import Events
from components.features.named_impressions import NO_ROW, NamedImpressions

UNATTRIBUTED = -1
UNATTRIBUTED_REASONS = ("no_rule", "no_entity", "no_impression", "too_late")


def attribute(impressions: Events, actions: Events, dataset: DatasetConfig) -> np.ndarray:
    """Credit each action to at most one impression.

    Onsite actions name their impression: of those with this id the last that the same user was shown by then. A click
    counts within `click_days`, a conversion within the click-through window of a click on that impression, else within
    the view-through window. Offsite conversions go to the last clicked impression of the same user and entity within
    the click-through window, else to the last view within the view-through window, else to none; a click that names no
    impression to the last view of the same user and item within `click_days`.

    An action that names its impression comes after it, and so does any click, also at the same moment; for offsite
    conversions the rule's `at_same_moment` says. Among touches at the same moment the one whose item is the action's
    own wins, then the one with the greatest impression id.

    Args:
        impressions: Every impression that may compete for one of the actions.
        actions: Actions of the same users.
        dataset: The windows and entities.

    Returns:
        Row of `impressions` for each action, or `UNATTRIBUTED`; int64, shape (actions,).
    """
    credited = np.full(len(actions), UNATTRIBUTED)
    if not len(impressions) or not len(actions):
        return credited
    is_onsite = actions.where("source", "onsite")
    named = np.where(is_onsite, NamedImpressions.of(actions, impressions).rows, UNATTRIBUTED)
    age = np.where(named >= 0, actions.times - impressions.times[named], -1)
    click_window = window_microseconds(dataset.click_days)
    in_time = (age >= 0) & (age <= click_window)
    of_clicks = actions.where("action_type", "click")
    credited[of_clicks & in_time] = named[of_clicks & in_time]
    views = _Touches(np.arange(len(impressions)), impressions.times, impressions)
    unnamed = np.flatnonzero(of_clicks & actions.where("source", "offsite") & actions.known("item_id"))
    credited[unnamed] = views.last_touch("item_id", actions.take(unnamed), click_window, at_same_moment=True)

    click_rows = np.flatnonzero(of_clicks & (credited >= 0))
    clicks = _Touches(credited[click_rows], actions.times[click_rows], impressions)
    own_clicks = EventIndex(clicks.rows.astype(np.uint64), clicks.times)
    for action_type, rule in dataset.attribution.items():
        through_click = window_microseconds(rule.click_through_days)
        through_view = window_microseconds(rule.view_through_days)
        of_type = actions.where("action_type", action_type)
        onsite = np.flatnonzero(of_type & (named >= 0))
        last = own_clicks.last_before(named[onsite].astype(np.uint64), actions.times[onsite] + 1)
        after_click = (last >= 0) & (actions.times[onsite] - _take(clicks.times, last) <= through_click)
        after_view = (age[onsite] >= 0) & (age[onsite] <= through_view)
        credited[onsite] = np.where(after_click | after_view, named[onsite], UNATTRIBUTED)

        chosen = np.flatnonzero(of_type & actions.where("source", "offsite") & actions.known(rule.entity))
        offsite = actions.take(chosen)
        by_click = clicks.last_touch(rule.entity, offsite, through_click, rule.at_same_moment)
        by_view = views.last_touch(rule.entity, offsite, through_view, rule.at_same_moment)
        credited[chosen] = np.where(by_click >= 0, by_click, by_view)
    return credited


def why_unattributed(
    impressions: Events, actions: Events, credited: np.ndarray, dataset: DatasetConfig
) -> dict[str, np.ndarray]:
    """By reason, the actions that are credited to none, bool, shape (actions,) each.

    `no_rule`: conversions of a type without attribution; `no_entity`: offsite ones without the value that they are
    attributed by; `no_impression`: no impression before it that it names, or of its user and entity; `too_late`: there
    is one, but every window is over; of impressions more than a day older than that nothing is known.
    """
    reasons = {name: np.zeros(len(actions), dtype=bool) for name in UNATTRIBUTED_REASONS}
    open_rows = np.flatnonzero(credited == UNATTRIBUTED)
    left = actions.take(open_rows)
    views, seen = (
        _Touches(np.arange(len(impressions)), impressions.times, impressions),
        window_microseconds(dataset.maturity_days + 1),
    )
    onsite = left.where("source", "onsite")
    is_any = onsite & (NamedImpressions.of(left, impressions).rows != NO_ROW)
    rules = {"click": ("item_id", True)} | {
        name: (rule.entity, rule.at_same_moment) for name, rule in dataset.attribution.items()
    }
    has_rule, has_entity = np.zeros(len(left), dtype=bool), onsite.copy()
    for action_type, (entity, at_same_moment) in rules.items():
        of_type = left.where("action_type", action_type)
        has_rule |= of_type
        chosen = np.flatnonzero(of_type & ~onsite & left.known(entity))
        has_entity[chosen] = True
        if len(impressions) and len(chosen):
            is_any[chosen] = views.last_touch(entity, left.take(chosen), seen, at_same_moment) != UNATTRIBUTED
    reasons["no_rule"][open_rows] = ~has_rule
    reasons["no_entity"][open_rows] = has_rule & ~has_entity
    reasons["no_impression"][open_rows] = has_rule & has_entity & ~is_any
    reasons["too_late"][open_rows] = has_rule & has_entity & is_any
    return reasons


def _take(values: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """`values[rows]`, with anything for rows of -1."""
    return values[rows] if len(values) else np.zeros(len(rows), dtype=values.dtype)


@dataclass(frozen=True)
class _Touches:
    """Clicks or views that conversions may be credited to.

    Attributes:
        rows: The row of `impressions` that was touched, int64, shape (touches,).
        times: When, int64, shape (touches,).
        impressions: What was shown.
    """

    rows: np.ndarray
    times: np.ndarray
    impressions: Events

    def last_touch(self, entity: str, actions: Events, window: int, at_same_moment: bool) -> np.ndarray:
        """The impression of the last touch before each action, or at its moment, and within the window; or -1.

        Only touches of users and entities that act are looked at (a semi-join), which leaves few of them to sort.
        """
        action_key = combine_hashes(actions.users, actions.hashed(entity))
        near, touch_key = self._of_keys(entity, actions.users, action_key)
        if not len(near):
            return np.full(len(actions), UNATTRIBUTED)
        rows, moments = self.rows[near], self.times[near]
        until = actions.times + 1 if at_same_moment else actions.times
        item = hash_identifiers(self.impressions.table["item_id"].take(pa.array(rows)))
        tie_break = _ranks(self.impressions.table["impression_id"].take(pa.array(rows)))
        touch = EventIndex(touch_key, moments, tie_break).last_before(action_key, until)
        same_item = EventIndex(combine_hashes(touch_key, item), moments, tie_break).last_before(
            combine_hashes(action_key, actions.hashed("item_id")), until
        )
        tied = (same_item >= 0) & (moments[same_item] == moments[touch])
        touch = np.where(tied, same_item, touch)
        credited = (touch >= 0) & (actions.times - moments[touch] <= window)
        return np.where(credited, rows[touch], UNATTRIBUTED)

    def _of_keys(self, entity: str, users: np.ndarray, keys: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The touches with one of the keys, and their keys."""
        near = np.flatnonzero(positions_in(self.impressions.users[self.rows], np.unique(users)) >= 0)
        rows = self.rows[near]
        entity_hash = hash_identifiers(self.impressions.table[entity].take(pa.array(rows)))
        touch_key = combine_hashes(self.impressions.users[rows], entity_hash)
        chosen = positions_in(touch_key, np.unique(keys)) >= 0
        return near[chosen], touch_key[chosen]


def _ranks(identifiers: pa.ChunkedArray) -> np.ndarray:
    """Ranks of identifiers in their own order, int64."""
    order = pc.sort_indices(identifiers).to_numpy()
    ranks = np.empty(len(order), dtype=np.int64)
    ranks[order] = np.arange(len(order))
    return ranks


@dataclass(frozen=True)
class Labels:
    """Labels of impressions, each of shape (impressions,)."""

    clicked: np.ndarray
    good_clicked: np.ndarray
    add_to_carts: np.ndarray
    checkouts: np.ndarray
    conversion_value: np.ndarray

    @property
    def positive(self) -> np.ndarray:
        """Impressions with any positive label, bool."""
        return (self.clicked > 0) | (self.add_to_carts > 0) | (self.checkouts > 0)


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
