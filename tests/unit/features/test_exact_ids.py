"""Exact ids against a dictionary, under any course of days."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from components.common.errors import InputError
from components.features.encoding import learned_rows
from components.features.exact_ids import ExactIds, Vocabulary
from components.features.feature_kinds import CategoricalFeature
from components.features.feature_list import FeatureConfig
from components.features.hashing import splitmix64

LARGE = 2**63 - 2
IDS = st.one_of(st.integers(0, 12), st.integers(LARGE - 12, LARGE))
DAYS = st.lists(st.tuples(st.integers(0, 4), st.dictionaries(IDS, st.integers(1, 4), max_size=9)), max_size=12)
RULES = st.builds(
    ExactIds,
    capacity=st.integers(1, 8),
    admit_after=st.integers(1, 4),
    evict_after_days=st.integers(1, 5),
    oov_rows=st.integers(1, 3),
    max_waiting=st.integers(1, 8),
)


def chance_of(number: int, day: int) -> int:
    return int(splitmix64(np.array([number ^ day], dtype=np.int64))[0])


class _Slow:
    """What the rules say, id by id."""

    def __init__(self, exact: ExactIds) -> None:
        self.exact = exact
        self.rows: dict[int, int] = {}
        self.counts: dict[int, int] = {}
        self.days: dict[int, int] = {}
        self.used = 0

    def update(self, counted: dict[int, int], day: int) -> list[int]:
        exact = self.exact
        for number, count in counted.items():
            self.counts[number] = self.counts.get(number, 0) + count
            self.days[number] = day
        for number in [number for number, last in self.days.items() if last <= day - exact.evict_after_days]:
            self._forget(number)
        candidates = [number for number in self.counts if number not in self.rows]
        candidates = [number for number in candidates if self.counts[number] >= exact.admit_after]
        held = sorted(self.rows, key=lambda number: (self.counts[number], self.days[number], self.rows[number]))
        free = [row for row in range(exact.capacity) if row not in self.rows.values()]
        given = []
        for number in sorted(candidates, key=lambda number: (-self.counts[number], number)):
            if free:
                row = free.pop(0)
            elif held and self.counts[held[0]] < self.counts[number]:
                row = self.rows.pop(held.pop(0))
            else:
                break
            self.rows[number] = row
            given.append(row)
        waiting = sorted(
            (number for number in self.counts if number not in self.rows),
            key=lambda number: (-self.counts[number], -self.days[number], chance_of(number, day)),
        )
        for number in waiting[exact.num_waiting :]:
            self._forget(number)
        reused = sorted(row for row in given if row < self.used)
        self.used = max([self.used, *(row + 1 for row in given)])
        return reused

    def _forget(self, number: int) -> None:
        for known in (self.rows, self.counts, self.days):
            known.pop(number, None)


def arrays(counted: dict[int, int]) -> tuple[np.ndarray, np.ndarray]:
    ids = sorted(counted)
    return np.array(ids, dtype=np.int64), np.array([counted[number] for number in ids], dtype=np.int64)


@settings(max_examples=300, deadline=None)
@given(exact=RULES, days=DAYS)
def test_rows_are_those_of_the_rules(exact, days):
    quick, slow, day = Vocabulary(exact), _Slow(exact), 20_000
    for pause, counted in days:
        day += pause
        # As a killed run does it: from what was written.
        quick = Vocabulary(exact, quick.state)
        assert quick.update(*arrays(counted), day).tolist() == slow.update(counted, day)
        asked = np.array(sorted({*counted, *slow.counts, 5, LARGE}), dtype=np.int64)
        expected = [slow.rows.get(number, -1) for number in asked.tolist()]
        assert quick.index.find(asked).tolist() == expected
        assert quick.num_known == len(slow.rows)
        shared = exact.capacity + asked % exact.oov_rows
        assert quick.index.rows(asked).tolist() == np.where(np.array(expected) < 0, shared, expected).tolist()


def test_index_does_not_depend_on_what_has_gone():
    """Over many days ids come and go, and their marks with them."""
    exact, generator = ExactIds(capacity=50, admit_after=1, evict_after_days=1), np.random.default_rng(3)
    vocabulary = Vocabulary(exact)
    for day in range(200):
        ids = np.unique(generator.integers(0, 400, 60))
        vocabulary.update(ids, np.ones(len(ids), dtype=np.int64), day)
        fresh = Vocabulary(exact, vocabulary.state)
        every = np.arange(400)
        assert np.array_equal(vocabulary.index.find(every), fresh.index.find(every))
        assert len(vocabulary.index.slots) <= 1024


@pytest.mark.parametrize("shape", [(0,), (3, 0), (2, 3)])
def test_shapes_of_ids_are_kept(shape):
    vocabulary = Vocabulary(ExactIds(capacity=4, oov_rows=2, admit_after=1))
    assert (vocabulary.index.rows(np.ones(shape, dtype=np.int64)) == 5).all()
    vocabulary.update(np.array([1]), np.array([1]), 0)
    found = vocabulary.index.rows(np.ones(shape, dtype=np.int64))
    assert found.shape == shape and (found == 0).all()


def test_tables_too_large_and_two_ways_at_once_are_refused():
    with pytest.raises(InputError, match=r"capacity \+ oov_rows = \d+: a table has fewer than 2\^31 rows"):
        ExactIds.parse({"capacity": 2**31 - 16}, "exact")
    for sizes in ({}, {"num_rows": 8, "exact": {"capacity": 8}}):
        with pytest.raises(InputError, match="item_id: give one of num_rows, binary_code, exact and quantiles"):
            CategoricalFeature.parse({"name": "item_id", **sizes}, "feature")


def test_index_that_is_not_given_is_named():
    features = FeatureConfig.parse({"categorical": [{"name": "item_id", "exact": {"capacity": 8}}]}, "features")
    with pytest.raises(ValueError, match="item_id has rows of its own for ids; pass the indexes"):
        learned_rows(np.zeros((2, 1), dtype=np.int64), ("item_id",), features, {})


def test_occurrences_that_are_noted_move_nobody_and_count_later():
    vocabulary = Vocabulary(ExactIds(capacity=2, admit_after=3))
    vocabulary.update(np.array([7]), np.array([3]), 0)
    vocabulary.note(np.array([7, 8]), np.array([1, 2]), 1)
    assert vocabulary.index.find(np.array([7, 8])).tolist() == [0, -1]
    vocabulary.update(np.array([8]), np.array([1]), 2)
    assert vocabulary.index.find(np.array([7, 8])).tolist() == [0, 1]
    assert vocabulary.counts.tolist() == [4, 3] and vocabulary.last_days.tolist() == [1, 2]
