"""What happened strictly before a moment: counts, recency and sequences of a user's earlier actions."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from components.features.hashing import positions_in

# Keys of a request, for which a hash table costs more than it saves.
_FEW_KEYS = 4096


class EventIndex:
    """Events sorted by key, then time, then a tie-breaker, for vectorised look-ups of what came before.

    Attributes:
        order: Event numbers in sorted order, int64, shape (events,).
        keys: The distinct keys, sorted, uint64.
    """

    def __init__(self, keys: np.ndarray, times: np.ndarray, tie_break: np.ndarray | None = None) -> None:
        """Index events.

        Args:
            keys: uint64, shape (events,).
            times: int64, shape (events,).
            tie_break: Sorts events of equal key and time; their given order when absent.
        """
        self.order = np.lexsort((times, keys) if tie_break is None else (tie_break, times, keys))
        sorted_keys = keys[self.order]
        is_first = np.ones(len(keys), dtype=np.bool_)
        is_first[1:] = sorted_keys[1:] != sorted_keys[:-1]
        self.keys = sorted_keys[is_first]
        self._times, time_codes = np.unique(times, return_inverse=True)
        assert len(self.keys) * (len(self._times) + 1) < 2**62
        self._codes = (np.cumsum(is_first) - 1) * (len(self._times) + 1) + time_codes[self.order]
        self._keys_asked: tuple[np.ndarray, np.ndarray, np.ndarray] | None = None
        self._stops_asked: tuple[np.ndarray, np.ndarray] | None = None

    @property
    def has_ties(self) -> bool:
        """Whether events of one key share a moment."""
        return bool((self._codes[1:] == self._codes[:-1]).any())

    def stops(self, keys: np.ndarray, times: np.ndarray) -> np.ndarray:
        """Where in `order` the events of each key before each time end; those of a key are side by side.

        The difference of two of them counts the events between two moments. Keys, and the first times that they are
        asked for, are known again when the same arrays come again, so their numbers must not change.

        Args:
            keys: uint64, shape (n,).
            times: int64, shape (n,); an event at exactly this time is not before it.

        Returns:
            Past-the-end positions, int64, shape (n,); 0 for a key without any event.
        """
        rows, base = self._asked(keys)
        if self._stops_asked is not None and self._stops_asked[0] is times:
            return self._stops_asked[1]
        stops = np.zeros(len(keys), dtype=np.int64)
        stops[rows] = np.searchsorted(self._codes, base + np.searchsorted(self._times, times[rows]))
        if self._stops_asked is None:
            self._stops_asked = (times, stops)
        return stops

    def _asked(self, keys: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Which of some keys have events, and the least codes of these."""
        if self._keys_asked is None or self._keys_asked[0] is not keys:
            key_codes = _positions_in_sorted(keys, self.keys)
            rows = np.flatnonzero(key_codes >= 0)
            self._keys_asked = (keys, rows, key_codes[rows] * (len(self._times) + 1))
            self._stops_asked = None
        return self._keys_asked[1:]

    def last_before(self, keys: np.ndarray, times: np.ndarray) -> np.ndarray:
        """The latest event of each key before each time, as an event number; -1 where there is none."""
        rows, base = self._asked(keys)
        places = self.stops(keys, times)[rows] - 1
        is_any = (places >= 0) & (self._codes[places] >= base)
        last = np.full(len(keys), -1)
        last[rows[is_any]] = self.order[places[is_any]]
        return last


@dataclass(frozen=True)
class EarlierEvents:
    """The latest few events before each of n moments, latest first.

    Attributes:
        offsets: Where each row's events begin in `events`, int64, shape (n + 1,).
        events: Event numbers, int64.
        ages: Microseconds between event and moment, int64, positive.
    """

    offsets: np.ndarray
    events: np.ndarray
    ages: np.ndarray


def latest_events(
    index: EventIndex, event_times: np.ndarray, keys: np.ndarray, times: np.ndarray, limit: int, horizon: int
) -> EarlierEvents:
    """Up to `limit` events of each key before each time and at most `horizon` microseconds old."""
    stop, too_old = index.stops(keys, times), index.stops(keys, times - horizon)
    lengths = np.minimum(stop - too_old, limit)
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    rows = np.repeat(np.arange(len(keys)), lengths)
    steps_back = np.arange(offsets[-1]) - offsets[rows] + 1
    events = index.order[stop[rows] - steps_back] if len(rows) else np.zeros(0, dtype=np.int64)
    return EarlierEvents(offsets, events, times[rows] - event_times[events])


def count_within(index: EventIndex, keys: np.ndarray, times: np.ndarray, window: int) -> np.ndarray:
    """Events of each key in [time - window, time), int64, shape (n,)."""
    return index.stops(keys, times) - index.stops(keys, times - window)


def age_of_last(
    index: EventIndex, event_times: np.ndarray, keys: np.ndarray, times: np.ndarray, horizon: int
) -> np.ndarray:
    """Microseconds since the latest event of each key, at most `horizon`, which also stands for none."""
    last = index.last_before(keys, times)
    if not len(event_times):
        return np.full(len(keys), horizon)
    return np.where(last >= 0, np.minimum(times - event_times[last], horizon), horizon)


def _positions_in_sorted(keys: np.ndarray, known: np.ndarray) -> np.ndarray:
    """As `positions_in`, of known keys that are sorted."""
    if len(keys) > _FEW_KEYS or not len(known):
        return positions_in(keys, known)
    places = np.minimum(np.searchsorted(known, keys), len(known) - 1)
    return np.where(known[places] == keys, places, -1)
