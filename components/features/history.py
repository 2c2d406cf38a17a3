"""What happened strictly before a moment: counts, recency and sequences of a user's earlier actions."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from components.features.hashing import positions_in


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
        ties = np.arange(len(keys)) if tie_break is None else tie_break
        self.order = np.lexsort((ties, times, keys))
        self.keys, key_codes = np.unique(keys, return_inverse=True)
        self._times, time_codes = np.unique(times, return_inverse=True)
        assert len(self.keys) * (len(self._times) + 1) < 2**62
        self._codes = (key_codes * (len(self._times) + 1) + time_codes)[self.order]
        self._asked: tuple[np.ndarray, np.ndarray] | None = None

    def spans(self, keys: np.ndarray, times: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Half-open ranges of `order` that hold the events of each key before each time.

        Args:
            keys: uint64, shape (n,).
            times: int64, shape (n,); an event at exactly this time is not before it.

        Returns:
            First and past-the-end positions, int64, shape (n,); equal when there are none.
        """
        # The same keys are often asked for at other times.
        if self._asked is None or self._asked[0] is not keys:
            self._asked = (keys, positions_in(keys, self.keys))
        key_codes = self._asked[1]
        rows = np.flatnonzero(key_codes >= 0)
        base = key_codes[rows] * (len(self._times) + 1)
        start, stop = np.zeros(len(keys), dtype=np.int64), np.zeros(len(keys), dtype=np.int64)
        start[rows] = np.searchsorted(self._codes, base)
        stop[rows] = np.searchsorted(self._codes, base + np.searchsorted(self._times, times[rows]))
        return start, stop

    def last_before(self, keys: np.ndarray, times: np.ndarray) -> np.ndarray:
        """The latest event of each key before each time, as an event number; -1 where there is none."""
        start, stop = self.spans(keys, times)
        is_any = stop > start
        return np.where(is_any, self.order[np.where(is_any, stop - 1, 0)] if len(self.order) else -1, -1)


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
    _, stop = index.spans(keys, times)
    _, too_old = index.spans(keys, times - horizon)
    lengths = np.minimum(stop - too_old, limit)
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    rows = np.repeat(np.arange(len(keys)), lengths)
    steps_back = np.arange(offsets[-1]) - offsets[rows] + 1
    events = index.order[stop[rows] - steps_back] if len(rows) else np.zeros(0, dtype=np.int64)
    return EarlierEvents(offsets, events, times[rows] - event_times[events])


def count_within(index: EventIndex, keys: np.ndarray, times: np.ndarray, window: int) -> np.ndarray:
    """Events of each key in [time - window, time), int64, shape (n,)."""
    return index.spans(keys, times)[1] - index.spans(keys, times - window)[1]


def age_of_last(
    index: EventIndex, event_times: np.ndarray, keys: np.ndarray, times: np.ndarray, horizon: int
) -> np.ndarray:
    """Microseconds since the latest event of each key, at most `horizon`, which also stands for none."""
    last = index.last_before(keys, times)
    if not len(event_times):
        return np.full(len(keys), horizon)
    return np.where(last >= 0, np.minimum(times - event_times[last], horizon), horizon)
