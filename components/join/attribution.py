"""Which impression each action is credited to."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from components.features.events import DatasetConfig, window_microseconds
from components.features.history import EventIndex
from components.features.log_events import Events
from components.features.named_impressions import NO_ROW, NamedImpressions
from components.join.touches import NO_IMPRESSION, Touches

UNATTRIBUTED = NO_IMPRESSION
UNATTRIBUTED_REASONS = ("no_rule", "no_entity", "no_impression", "too_late")


class Attribution:
    """Credits each action to at most one impression.

    Onsite actions name their impression: of those with this id the last that the same user was shown by then. A click
    counts within `click_days`, a conversion within the click-through window of a click on that impression, else within
    the view-through window. Offsite conversions go to the last clicked impression of the same user and entity within
    the click-through window, else to the last view within the view-through window, else to none; a click that names no
    impression to the last view of the same user and item within `click_days`.

    An action that names its impression comes after it, and so does any click, also at the same moment; for offsite
    conversions the rule's `at_same_moment` says. Among touches at the same moment the one whose item is the action's
    own wins, then the one with the greatest impression id.

    Attributes:
        credited: Row of the impressions for each action, or `UNATTRIBUTED`; int64, shape (actions,).
    """

    def __init__(self, impressions: Events, actions: Events, dataset: DatasetConfig) -> None:
        """Credit.

        Args:
            impressions: Every impression that may compete for one of the actions.
            actions: Actions of the same users.
            dataset: The windows and entities.
        """
        self._impressions, self._actions, self._dataset = impressions, actions, dataset
        named = NamedImpressions.of(actions, impressions).rows
        self._named = np.where(actions.where("source", "onsite"), named, NO_ROW)
        self._views = Touches(np.arange(len(impressions)), impressions.times, impressions, actions)
        self.credited = np.full(len(actions), UNATTRIBUTED)
        if len(impressions) and len(actions):
            self._credit_clicks()
            self._credit_conversions()

    def _credit_clicks(self) -> None:
        actions, window = self._actions, window_microseconds(self._dataset.click_days)
        of_clicks, age = actions.where("action_type", "click"), self._ages()
        in_time = of_clicks & (age >= 0) & (age <= window)
        self.credited[in_time] = self._named[in_time]
        unnamed = np.flatnonzero(of_clicks & actions.where("source", "offsite") & actions.known("item_id"))
        self.credited[unnamed] = self._views.last("item_id", unnamed, window, at_same_moment=True)

    def _credit_conversions(self) -> None:
        actions, age, is_offsite = self._actions, self._ages(), self._actions.where("source", "offsite")
        click_rows = np.flatnonzero(actions.where("action_type", "click") & (self.credited >= 0))
        clicks = Touches(self.credited[click_rows], actions.times[click_rows], self._impressions, actions)
        own_clicks = EventIndex(clicks.rows.astype(np.uint64), clicks.times)
        for action_type, rule in self._dataset.attribution.items():
            through_click = window_microseconds(rule.click_through_days)
            through_view = window_microseconds(rule.view_through_days)
            of_type = actions.where("action_type", action_type)
            onsite = np.flatnonzero(of_type & (self._named >= 0))
            last = own_clicks.last_before(self._named[onsite].astype(np.uint64), actions.times[onsite] + 1)
            after_click = (last >= 0) & (actions.times[onsite] - _take(clicks.times, last) <= through_click)
            after_view = (age[onsite] >= 0) & (age[onsite] <= through_view)
            self.credited[onsite] = np.where(after_click | after_view, self._named[onsite], UNATTRIBUTED)

            offsite = np.flatnonzero(of_type & is_offsite & actions.known(rule.entity))
            by_click = clicks.last(rule.entity, offsite, through_click, rule.at_same_moment)
            by_view = self._views.last(rule.entity, offsite, through_view, rule.at_same_moment)
            self.credited[offsite] = np.where(by_click >= 0, by_click, by_view)

    def _ages(self) -> np.ndarray:
        """Microseconds since the impression that an action names, -1 without one; int64, shape (actions,)."""
        return np.where(self._named >= 0, self._actions.times - self._impressions.times[self._named], -1)

    def why_unattributed(self) -> dict[str, np.ndarray]:
        """By reason, the actions that are credited to none, bool, shape (actions,) each.

        `no_rule`: conversions of a type without attribution; `no_entity`: offsite ones without the value that they are
        attributed by; `no_impression`: no impression before it that it names, or of its user and entity; `too_late`:
        there is one, but every window is over; of impressions more than a day older than that nothing is known.
        """
        actions, seen = self._actions, window_microseconds(self._dataset.maturity_days + 1)
        is_open, is_onsite = self.credited == UNATTRIBUTED, actions.where("source", "onsite")
        is_any = self._named != NO_ROW
        rules = {"click": ("item_id", True)} | {
            name: (rule.entity, rule.at_same_moment) for name, rule in self._dataset.attribution.items()
        }
        has_rule, has_entity = np.zeros(len(actions), dtype=bool), is_onsite.copy()
        for action_type, (entity, at_same_moment) in rules.items():
            of_type = is_open & actions.where("action_type", action_type)
            has_rule |= of_type
            chosen = np.flatnonzero(of_type & ~is_onsite & actions.known(entity))
            has_entity[chosen] = True
            is_any[chosen] = self._views.last(entity, chosen, seen, at_same_moment) != UNATTRIBUTED
        return {
            "no_rule": is_open & ~has_rule,
            "no_entity": is_open & has_rule & ~has_entity,
            "no_impression": is_open & has_rule & has_entity & ~is_any,
            "too_late": is_open & has_rule & has_entity & is_any,
        }


def _take(values: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """`values[rows]`, with anything for rows of -1."""
    return values[rows] if len(values) else np.zeros(len(rows), dtype=values.dtype)


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
