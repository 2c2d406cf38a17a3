"""Clicks or views that actions without an impression's id may be credited to."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from components.features.hashing import combine_hashes, hash_identifiers, is_in
from components.features.history import EventIndex
from components.features.log_events import Events

NO_IMPRESSION = -1


@dataclass(frozen=True)
class Touches:
    """Touches of impressions, and the actions that ask for the last of them.

    Attributes:
        rows: The row of `impressions` that was touched, int64, shape (touches,).
        times: When, int64, shape (touches,).
        impressions: What was shown.
        actions: The log whose offsite actions ask.
    """

    rows: np.ndarray
    times: np.ndarray
    impressions: Events
    actions: Events
    _of_entities: dict[str, _OfEntity] = field(default_factory=dict)

    def last(self, entity: str, asking: np.ndarray, window: int, at_same_moment: bool) -> np.ndarray:
        """The impression of the last touch of an action's user and entity, before it and within a window.

        Among touches at the same moment the one with the action's own item wins, then the one with the greatest
        impression id.

        Args:
            entity: The identifier that both must have the same value of.
            asking: Rows of `actions`, offsite and with a value of the entity; int64, shape (n,).
            window: Microseconds.
            at_same_moment: Whether a touch at an action's own moment counts.

        Returns:
            Rows of `impressions`, or `NO_IMPRESSION`; int64, shape (n,).
        """
        if not len(asking):
            return np.zeros(0, dtype=np.int64)
        if entity not in self._of_entities:
            self._of_entities[entity] = _OfEntity.of(self, entity)
        return self._of_entities[entity].last(asking, self.actions.times[asking], window, at_same_moment)


@dataclass(frozen=True)
class _Keyed:
    """Touches by key, and the keys that all actions ask for, uint64, shape (actions,)."""

    index: EventIndex
    asked: np.ndarray

    def last(self, asking: np.ndarray, until: np.ndarray) -> np.ndarray:
        return self.index.last_before(self.asked[asking], until)


@dataclass(frozen=True)
class _OfEntity:
    """The touches whose user and value of an entity some action asks for (a semi-join, which leaves few to sort).

    Attributes:
        rows: Impressions, int64, shape (touches,).
        times: int64, shape (touches,).
        keyed: By user and value.
        keyed_with_item: And by the item; only where touches of one key share a moment.
    """

    rows: np.ndarray
    times: np.ndarray
    keyed: _Keyed
    keyed_with_item: _Keyed | None = None

    @classmethod
    def of(cls, touches: Touches, entity: str) -> _OfEntity:
        impressions, actions = touches.impressions, touches.actions
        keys = combine_hashes(actions.users, actions.hashed(entity))
        asks = ~actions.where("source", "onsite") & actions.known(entity)
        near = np.flatnonzero(is_in(impressions.users[touches.rows], np.unique(actions.users[asks])))
        shown = impressions.table[entity].take(pa.array(touches.rows[near]))
        touched = combine_hashes(impressions.users[touches.rows[near]], hash_identifiers(shown))
        chosen = is_in(touched, np.unique(keys[asks]))
        rows, times, touched = touches.rows[near[chosen]], touches.times[near[chosen]], touched[chosen]
        index = EventIndex(touched, times)
        if not index.has_ties:
            return cls(rows, times, _Keyed(index, keys))
        tie_break = _ranks(impressions.table["impression_id"].take(pa.array(rows)))
        item = hash_identifiers(impressions.table["item_id"].take(pa.array(rows)))
        with_item = EventIndex(combine_hashes(touched, item), times, tie_break)
        asked = combine_hashes(keys, actions.hashed("item_id"))
        return cls(rows, times, _Keyed(EventIndex(touched, times, tie_break), keys), _Keyed(with_item, asked))

    def last(self, asking: np.ndarray, times: np.ndarray, window: int, at_same_moment: bool) -> np.ndarray:
        if not len(self.rows):
            return np.full(len(asking), NO_IMPRESSION)
        until = times + 1 if at_same_moment else times
        touch = self.keyed.last(asking, until)
        if self.keyed_with_item is not None:
            same_item = self.keyed_with_item.last(asking, until)
            tied = (same_item >= 0) & (self.times[same_item] == self.times[touch])
            touch = np.where(tied, same_item, touch)
        is_within = (touch >= 0) & (times - self.times[touch] <= window)
        return np.where(is_within, self.rows[touch], NO_IMPRESSION)


def _ranks(identifiers: pa.ChunkedArray) -> np.ndarray:
    """Ranks of identifiers in their own order, int64."""
    order = pc.sort_indices(identifiers).to_numpy()
    ranks = np.empty(len(order), dtype=np.int64)
    ranks[order] = np.arange(len(order))
    return ranks
