"""Ranges of numbers: ids in their order, and ranges of equal shares."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from components.common.errors import InputError
from components.features.feature_kinds import CategoricalFeature
from components.features.quantiles import LearnedQuantiles, Quantiles, number_ids

floats = st.floats(width=32, allow_nan=False, allow_infinity=False)


def learned(*days: list[float], buckets: int = 4) -> LearnedQuantiles:
    """The ranges of some days of a batch."""
    ranges = LearnedQuantiles(Quantiles(number="price", buckets=buckets))
    for day, numbers in enumerate(days):
        assert not len(ranges.update(*np.unique(number_ids(np.array(numbers)), return_counts=True), day))
    return ranges


def rows(ranges: LearnedQuantiles, *numbers: float) -> list[int]:
    return ranges.index.rows(number_ids(np.array(numbers, dtype=float))).tolist()


@given(st.lists(floats, min_size=2, max_size=50))
def test_ids_are_in_the_order_of_the_numbers(numbers):
    values = np.sort(np.array(numbers, dtype=float))
    ids = number_ids(values)
    assert (np.diff(ids) >= 0).all() and ids.min() >= 1 and ids.max() <= 2**24
    apart = np.diff(values) > 1e-4 * np.abs(values[1:]).clip(min=1e-30)
    assert (np.diff(ids)[apart & (np.sign(values[1:]) == np.sign(values[:-1]))] > 0).all()


def test_zero_has_one_id_and_an_absent_number_its_own():
    assert number_ids(np.array([-0.0, 0.0, np.nan])).tolist()[2] == 0
    assert len(set(number_ids(np.array([-0.0, 0.0])).tolist())) == 1


@given(st.lists(st.lists(st.integers(-40, 40), min_size=1, max_size=60), min_size=1, max_size=3), st.integers(2, 9))
def test_ranges_hold_equal_shares_but_for_numbers_that_fill_one(days, buckets):
    ranges = learned(*days, buckets=buckets)
    numbers = np.concatenate(days).astype(float)
    found = ranges.index.rows(number_ids(numbers))
    assert 1 <= found.min() and found.max() <= buckets
    # The order of the days is nothing to it.
    assert np.array_equal(ranges.bounds, learned(*reversed(days), buckets=buckets).bounds)
    for row in np.unique(found):
        own = numbers[found == row]
        most_common = np.unique(own, return_counts=True)[1].max()
        assert len(own) - most_common <= -(-len(numbers) // buckets)


def test_number_that_most_examples_have_is_told_apart_from_the_rest():
    assert rows(learned([0.0] * 99 + [5.0]), 0, 5, -1, np.nan) == [1, 2, 1, 0]
    assert rows(learned([5.0] * 99 + [0.0], buckets=2), 0, 5) == [1, 2]
    assert len({*rows(learned([1.0] * 40 + [2.0] * 40 + [3.0] * 40), 1, 2, 3)}) == 3


def test_ranges_are_those_of_the_batch_and_stay():
    ranges = learned([1.0, 2.0], [3.0, 4.0])
    again = Quantiles(number="price", buckets=4).learned(ranges.state)
    again.update(number_ids(np.array([100.0, 200.0])), np.array([5, 5]), 9)
    again.note(number_ids(np.array([100.0])), np.array([5]), 10)
    assert rows(again, 1, 2, 3, 4, 1000) == [1, 2, 3, 4, 4]
    assert rows(learned([float("nan")]), 7, np.nan) == [1, 0]


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"name": "a", "num_rows": 8, "quantiles": {"number": "b"}}, "give one of num_rows"),
        ({"name": "a", "num_rows": 8, "crossed": ["b"]}, "two identifiers or more"),
        ({"name": "a", "crossed": ["b", "c"], "quantiles": {"number": "b"}}, "no quantiles"),
    ],
)
def test_declarations_that_say_two_things_are_refused(values, said):
    with pytest.raises(InputError, match=said):
        CategoricalFeature.parse(values, "features.categorical")
