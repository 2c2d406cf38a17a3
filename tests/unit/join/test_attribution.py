from __future__ import annotations

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from components.join.attribution import attribute, label
from components.join.events import Events
from tests.unit.join.logs import DATASET, DAY, HOUR, actions, impressions


def credited_ids(shown, acted, like=None):
    shown_table, acted_table = impressions(shown, like=like), actions(acted, like=like)
    rows = attribute(Events.of(shown_table), Events.of(acted_table), DATASET)
    identifiers = shown_table["impression_id"].to_pylist()
    return [identifiers[row] if row >= 0 else None for row in rows]


def oracle(shown, acted):
    """The rule of `attribute`'s docstring, one action at a time."""
    by_id = {row["impression_id"]: row for row in shown}
    clicks = []

    def named_by(action):
        named = by_id.get(action.get("impression_id")) if action["source"] == "onsite" else None
        return named if named and named["user_id"] == action["user_id"] else None

    result = [None] * len(acted)
    for number, action in enumerate(acted):
        named = named_by(action)
        if action["action_type"] == "click" and named is not None:
            if 0 <= action["timestamp"] - named["timestamp"] <= DATASET.click_days * DAY:
                result[number] = named["impression_id"]
                clicks.append((named, action["timestamp"]))
    for number, action in enumerate(acted):
        if action["action_type"] == "click":
            continue
        rule, when = DATASET.attribution[action["action_type"]], action["timestamp"]

        def within(touched, days, when=when):
            return 0 < when - touched <= days * DAY

        if action["source"] == "onsite":
            named = named_by(action)
            if named is not None:
                by_click = [t for row, t in clicks if row is named and within(t, rule.click_through_days)]
                if by_click or within(named["timestamp"], rule.view_through_days):
                    result[number] = named["impression_id"]
            continue
        entity = action.get(rule.entity)
        for touches, days in (
            (clicks, rule.click_through_days),
            ([(row, row["timestamp"]) for row in shown], rule.view_through_days),
        ):
            matching = [
                (t, row["item_id"] == action.get("item_id"), row["impression_id"])
                for row, t in touches
                if entity is not None
                and row[rule.entity] == entity
                and row["user_id"] == action["user_id"]
                and within(t, days)
            ]
            if matching:
                result[number] = max(matching)[2]
                break
    return result


moments = st.integers(0, 24 * 6).map(lambda hours: hours * HOUR)
small = st.integers(0, 2)
shown_rows = st.lists(
    st.fixed_dictionaries({"timestamp": moments, "user_id": small, "item_id": small, "brand": small}), max_size=12
)
acted_rows = st.lists(
    st.fixed_dictionaries(
        {
            "timestamp": moments,
            "user_id": small,
            "item_id": small,
            "brand": st.one_of(st.none(), small),
            "action_type": st.sampled_from(["click", "click", "add_to_cart", "checkout"]),
            "source": st.sampled_from(["onsite", "offsite"]),
            "impression_id": st.one_of(st.none(), st.integers(0, 11)),
        }
    ),
    max_size=16,
)


@given(shown_rows, acted_rows)
@settings(max_examples=400, deadline=None)
def test_attribution_agrees_with_brute_force(shown, acted):
    shown = [row | {"impression_id": number} for number, row in enumerate(shown)]
    acted = [row | {"action_id": number} for number, row in enumerate(acted)]
    assert credited_ids(shown, acted) == oracle(shown, acted)


def row(identifier, hours, **more):
    return {"impression_id": identifier, "timestamp": hours * HOUR, "user_id": 1, "item_id": 1, "brand": 1} | more


def checkout(hours, **more):
    base = {"action_id": 1, "timestamp": hours * HOUR, "user_id": 1, "item_id": 1, "brand": 1}
    return base | {"action_type": "checkout", "source": "offsite"} | more


def click(identifier, hours):
    return {
        "action_id": 100 + identifier,
        "timestamp": hours * HOUR,
        "user_id": 1,
        "item_id": 1,
        "brand": 1,
        "action_type": "click",
        "source": "onsite",
        "impression_id": identifier,
    }


def test_last_click_beats_a_later_view():
    assert credited_ids([row(1, 0), row(2, 5)], [click(1, 1), checkout(10)])[1] == 1


def test_view_counts_only_within_its_shorter_window():
    assert credited_ids([row(1, 0)], [checkout(24)]) == [1]
    assert credited_ids([row(1, 0)], [checkout(24.0001)]) == [None]
    assert credited_ids([row(1, 0)], [click(1, 0), checkout(72)])[1] == 1


def test_touch_at_the_same_moment_is_no_cause():
    assert credited_ids([row(1, 5)], [checkout(5)]) == [None]


def test_ties_go_to_the_own_item_then_to_the_greatest_id():
    shown = [row(1, 0, item_id=7), row(2, 0, item_id=8), row(3, 0, item_id=9)]
    cart = checkout(1, action_type="add_to_cart", item_id=7)
    assert credited_ids(shown, [cart]) == [1]
    assert credited_ids(shown, [cart | {"item_id": 5}]) == [3]


def test_string_identifiers():
    shown = [row("a", 0, user_id="u", item_id="i", brand="b")]
    acted = [checkout(1, action_id="x", user_id="u", item_id="i", brand="b")]
    assert credited_ids(shown, acted, like=pa.string()) == ["a"]


def test_several_actions_on_one_impression_are_counted_and_values_kept():
    shown = impressions([row(1, 0), row(2, 0, user_id=2)])
    acted = Events.of(
        actions(
            [
                click(1, 1) | {"dwell_seconds": 40.0},
                click(1, 2) | {"action_id": 3, "dwell_seconds": 5.0},
                checkout(3, action_id=4, value=2.5),
                checkout(4, action_id=5, value=4.0),
                checkout(4, action_id=6, action_type="add_to_cart"),
                checkout(99, action_id=7, value=100.0, user_id=3),
            ]
        )
    )
    found = label(2, acted, attribute(Events.of(shown), acted, DATASET), DATASET)
    assert found.clicked.tolist() == [1, 0]
    assert found.good_clicked.tolist() == [1, 0]
    assert found.checkouts.tolist() == [2, 0]
    assert found.add_to_carts.tolist() == [1, 0]
    assert found.conversion_value.tolist() == [6.5, 0.0]


@pytest.mark.parametrize(("shown", "acted"), [([], [checkout(1)]), ([row(1, 0)], [])])
def test_empty_logs(shown, acted):
    assert credited_ids(shown, acted) == [None] * len(acted)
