"""Exact ids: those that training has seen often enough have a row of their own, which no other id shares."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from pydantic import Field, model_validator

from components.common.config import Config
from components.features.hashing import splitmix64

_UNUSED = np.int64(-1)
# Fibonacci hashing: the golden ratio's part of 2^64.
_SPREAD = np.uint64(0x9E3779B97F4A7C15)
_MOST_TAKEN = 2 / 3
_LEAST_SLOTS = 16


class ExactIds(Config):
    """A table whose rows are given to ids one by one, as training meets them."""

    capacity: int = Field(ge=1, description="ids with a row of their own, at most")
    admit_after: int = Field(2, ge=1, description="occurrences in training examples before an id gets a row")
    evict_after_days: int = Field(90, ge=1, description="days without an occurrence after which an id loses its row")
    oov_rows: int = Field(16, ge=1, description="rows that all other ids share, by hash")
    max_waiting: int | None = Field(
        None, ge=1, description="ids without a row whose occurrences are remembered; 8 a row, a million at least"
    )

    @model_validator(mode="after")
    def _check_rows(self) -> ExactIds:
        if self.num_rows >= 2**31:
            raise ValueError(f"capacity + oov_rows = {self.num_rows}: a table has fewer than 2^31 rows; lower one")
        return self

    @property
    def num_waiting(self) -> int:
        """Ids without a row whose occurrences are remembered, at most."""
        return self.max_waiting or max(8 * self.capacity, 1_000_000)

    @property
    def num_rows(self) -> int:
        """Rows of the table: those of admitted ids, then the shared ones."""
        return self.capacity + self.oov_rows

    def learned(self, state: dict[str, np.ndarray] | None = None) -> Vocabulary:
        """Begin without any id, or with what `state` gave."""
        return Vocabulary(self, state)

    def index(self, keys: np.ndarray, slots: np.ndarray) -> IdIndex:
        """What an index's arrays make."""
        return IdIndex(self, keys, slots)


@dataclass(frozen=True)
class IdIndex:
    """Which row each admitted id has: a hash table with open addressing, which servers map into memory as it is.

    Attributes:
        exact: Sizes of the table.
        keys: The id of each row, -1 where there is none; int64, shape (rows in use,).
        slots: By hash, one more than a row, 0 where there is none; int32, shape (a power of two,). A row's id may have
            gone since: its key tells.
    """

    exact: ExactIds
    keys: np.ndarray
    slots: np.ndarray

    def find(self, ids: np.ndarray) -> np.ndarray:
        """The row of each id, -1 of those that are not admitted.

        Args:
            ids: `feature_ids` of any shape, int64.

        Returns:
            int64, of that shape.
        """
        wanted, rows = np.ascontiguousarray(ids).reshape(-1), np.full(ids.size, -1, dtype=np.int64)
        left: np.ndarray | slice = slice(None)
        places = _first_places(wanted, len(self.slots))
        while len(places) and len(self.keys):
            found = self.slots.take(places).astype(np.int64) - 1
            is_own = (self.keys.take(found, mode="clip") == wanted) & (found >= 0)
            if isinstance(left, slice):
                np.copyto(rows, found, where=is_own)
            else:
                rows[left[is_own]] = found[is_own]
            more = np.flatnonzero(~is_own & (found >= 0))
            left = more if isinstance(left, slice) else left[more]
            places, wanted = (places[more] + 1) & (len(self.slots) - 1), wanted[more]
        return rows.reshape(ids.shape)

    def rows(self, ids: np.ndarray) -> np.ndarray:
        """The table's row of each id, one of the shared ones if it is not admitted; int64, of the ids' shape."""
        found = self.find(ids)
        return np.where(found >= 0, found, self.exact.capacity + ids % self.exact.oov_rows)


class Vocabulary:
    """The ids of one table as training knows them.

    Attributes:
        exact: Sizes, and the rules of admission and eviction.
        keys: The id of each row, -1 where there is none; int64, shape (rows in use,).
        counts: Occurrences of each row's id, int64, likewise.
        last_days: When it last occurred, in days since 1970, int32, likewise.
        waiting: Ids without a row, ascending; int64, shape (w,).
        waiting_counts: Their occurrences, int64, likewise.
        waiting_days: When they last occurred, int32, likewise.
    """

    keys: np.ndarray
    counts: np.ndarray
    last_days: np.ndarray
    waiting: np.ndarray
    waiting_counts: np.ndarray
    waiting_days: np.ndarray

    def __init__(self, exact: ExactIds, state: dict[str, np.ndarray] | None = None) -> None:
        """Begin without any id, or with what `state` gave."""
        self.exact, state = exact, state or {}
        for name, dtype in _STATE.items():
            setattr(self, name, np.array(state.get(name, ()), dtype=dtype))
        self._mark_all()

    @property
    def state(self) -> dict[str, np.ndarray]:
        """Everything that decides what comes."""
        return {name: getattr(self, name) for name in _STATE}

    @property
    def index(self) -> IdIndex:
        """Which row each id has; a later update changes it."""
        return IdIndex(self.exact, self.keys, self._slots)

    @property
    def num_known(self) -> int:
        """Ids with a row of their own."""
        return int(np.count_nonzero(self.keys != _UNUSED))

    def update(self, ids: np.ndarray, counts: np.ndarray, day: int) -> np.ndarray:
        """Take in what examples have: count, evict, admit. The same days give the same rows.

        Ids that have not occurred for `evict_after_days` go. Of those that have occurred `admit_after` times, the most
        frequent get the free rows; where none is left, one that is more frequent than the least frequent admitted id
        takes that one's row, which waits again.

        Args:
            ids: Different ones, int64, shape (u,).
            counts: Their occurrences, int64, shape (u,).
            day: The examples' last one, in days since 1970.

        Returns:
            Rows that had another id before, and whose numbers must be made new; ascending, int64.
        """
        is_known = self._count(ids, counts, day) >= 0
        oldest = day - self.exact.evict_after_days
        self._free(np.flatnonzero((self.last_days <= oldest) & (self.keys != _UNUSED)))
        self._wait(ids[~is_known], counts[~is_known], np.full(int((~is_known).sum()), day))
        self._keep_waiting(self.waiting_days > oldest)
        given = self._admit()
        self._bound_waiting(day)
        return given

    def note(self, ids: np.ndarray, counts: np.ndarray, day: int) -> None:
        """Count what examples have, as `update` does, but leave every id where it is."""
        rows = self._count(ids, counts, day)
        self._wait(ids[rows < 0], counts[rows < 0], np.full(int((rows < 0).sum()), day))
        self._bound_waiting(day)

    def _count(self, ids: np.ndarray, counts: np.ndarray, day: int) -> np.ndarray:
        """Count the occurrences of ids with a row; returns the rows of all, -1 of the others."""
        rows = self.index.find(ids)
        is_known = rows >= 0
        self.counts[rows[is_known]] += counts[is_known]
        self.last_days[rows[is_known]] = day
        return rows

    def _bound_waiting(self, day: int) -> None:
        """Forget those that wait with the fewest occurrences, and of equals other ones on every day."""
        if len(self.waiting) > self.exact.num_waiting:
            chance = splitmix64(self.waiting ^ np.int64(day))
            order = np.lexsort((chance, -self.waiting_days.astype(np.int64), -self.waiting_counts))
            self._keep_waiting(np.sort(order[: self.exact.num_waiting]))

    def _admit(self) -> np.ndarray:
        candidates = np.flatnonzero(self.waiting_counts >= self.exact.admit_after)
        candidates = candidates[np.lexsort((self.waiting[candidates], -self.waiting_counts[candidates]))]
        unused = np.flatnonzero(self.keys == _UNUSED)
        fresh = np.arange(len(self.keys), min(len(self.keys) + len(candidates), self.exact.capacity))
        free = np.concatenate([unused, fresh])[: len(candidates)]
        taken = self._least_frequent(self.waiting_counts[candidates[len(free) :]])
        rows, candidates = np.concatenate([free, taken]), candidates[: len(free) + len(taken)]
        ids, counts, days = (values[candidates] for values in self._of_waiting)
        replaced = tuple(values[taken] for values in (self.keys, self.counts, self.last_days))
        self._keep_waiting(np.setdiff1d(np.arange(len(self.waiting)), candidates, assume_unique=True))
        self._wait(*replaced)
        num_used = len(self.keys)
        self._grow(int(rows.max(initial=-1)) + 1)
        self.keys[rows], self.counts[rows], self.last_days[rows] = ids, counts, days
        self._mark(ids, rows)
        return np.sort(rows[rows < num_used])

    def _least_frequent(self, counts: np.ndarray) -> np.ndarray:
        """Rows of the least frequent ids, each less frequent than the candidate, by count descending, that takes it."""
        rows = np.flatnonzero(self.keys != _UNUSED) if len(counts) else np.zeros(0, dtype=np.int64)
        number = min(len(counts), len(rows))
        if not number:
            return rows[:0]
        held = self.counts[rows]
        rows = rows[held <= np.partition(held, number - 1)[number - 1]]
        rows = rows[np.lexsort((rows, self.last_days[rows], self.counts[rows]))][:number]
        return rows[self.counts[rows] < counts[:number]]

    @property
    def _of_waiting(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        return self.waiting, self.waiting_counts, self.waiting_days

    def _keep_waiting(self, kept: np.ndarray) -> None:
        self.waiting, self.waiting_counts, self.waiting_days = (values[kept] for values in self._of_waiting)

    def _wait(self, ids: np.ndarray, counts: np.ndarray, days: np.ndarray) -> None:
        """Add different ids without a row to those that wait."""
        if not len(ids):
            return
        added = (np.concatenate(pair) for pair in zip(self._of_waiting, (ids, counts, days), strict=True))
        every, all_counts, all_days = added
        order = np.argsort(every, kind="stable")
        every, all_counts, all_days = every[order], all_counts[order], all_days[order]
        starts = np.flatnonzero(np.concatenate([[True], every[1:] != every[:-1]]))
        self.waiting, self.waiting_counts = every[starts], np.add.reduceat(all_counts, starts)
        self.waiting_days = np.maximum.reduceat(all_days, starts).astype(np.int32)

    def _free(self, rows: np.ndarray) -> None:
        self.keys[rows], self.counts[rows], self.last_days[rows] = _UNUSED, 0, 0

    def _grow(self, num_rows: int) -> None:
        more = max(num_rows - len(self.keys), 0)
        self.keys = np.concatenate([self.keys, np.full(more, _UNUSED)])
        self.counts = np.concatenate([self.counts, np.zeros(more, dtype=np.int64)])
        self.last_days = np.concatenate([self.last_days, np.zeros(more, dtype=np.int32)])

    def _mark(self, ids: np.ndarray, rows: np.ndarray) -> None:
        """Put ids into the index; those that have gone stay marked until there is no room."""
        self._num_marked += len(ids)
        if self._num_marked > _MOST_TAKEN * len(self._slots):
            self._mark_all()
        else:
            _insert(self._slots, ids, rows)

    def _mark_all(self) -> None:
        rows = np.flatnonzero(self.keys != _UNUSED)
        self._num_marked = len(rows)
        # Room for half as many again, so that this is rare.
        num_slots = 1 << int(np.ceil(np.log2(max(1.5 * len(rows) / _MOST_TAKEN, _LEAST_SLOTS))))
        self._slots = np.zeros(num_slots, dtype=np.int32)
        _insert(self._slots, self.keys[rows], rows)


_STATE = {
    "keys": np.int64,
    "counts": np.int64,
    "last_days": np.int32,
    "waiting": np.int64,
    "waiting_counts": np.int64,
    "waiting_days": np.int32,
}


def _first_places(ids: np.ndarray, num_slots: int) -> np.ndarray:
    shift = np.uint64(65 - num_slots.bit_length())
    return ((ids.view(np.uint64) * _SPREAD) >> shift).view(np.int64)


def _insert(slots: np.ndarray, ids: np.ndarray, rows: np.ndarray) -> None:
    """Mark different ids in a table that has room for them."""
    places, marks = _first_places(np.ascontiguousarray(ids), len(slots)), (rows + 1).astype(np.int32)
    while len(places):
        free = slots.take(places) == 0
        slots[places[free]] = marks[free]
        # Of several at one slot, the last that was written has it.
        left = slots.take(places) != marks
        places, marks = (places[left] + 1) & (len(slots) - 1), marks[left]
