from __future__ import annotations

import pyarrow as pa
import pytest

from components.features.events import DatasetConfig
from components.features.log_events import Events
from components.join.attribution import Attribution, label
from tests.unit.join.logs import DATASET, HOUR, actions, impressions


def credited_ids(shown, acted, like=None):
    shown_table, acted_table = impressions(shown, like=like), actions(acted, like=like)
    rows = Attribution(Events.of(shown_table), Events.of(acted_table), DATASET).credited
    identifiers = shown_table["impression_id"].to_pylist()
    return [identifiers[row] if row >= 0 else None for row in rows]


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


def test_touch_at_the_same_moment_counts_as_the_rule_says():
    """Of offsite conversions: carts say yes, checkouts no. What names its impression always came after it."""
    assert credited_ids([row(1, 5)], [checkout(5)]) == [None]
    assert credited_ids([row(1, 5)], [checkout(5, action_type="add_to_cart")]) == [1]
    assert credited_ids([row(1, 5)], [checkout(5, source="onsite", impression_id=1)]) == [1]
    assert credited_ids([row(1, 5)], [click(1, 5), checkout(53, source="onsite", impression_id=1)]) == [1, 1]


def test_click_without_an_impression_goes_to_the_last_view_of_the_item():
    shown = [row(1, 0), row(2, 3), row(3, 4, item_id=2), row(4, 4, user_id=2)]
    bare = click(1, 5) | {"source": "offsite", "impression_id": None}
    assert credited_ids(shown, [bare, checkout(72)]) == [2, 2]
    assert credited_ids(shown, [bare | {"timestamp": 3 * HOUR}]) == [2]
    assert credited_ids(shown, [bare | {"timestamp": 27 * HOUR + 1}]) == [None]
    assert credited_ids(shown, [bare | {"item_id": None}]) == [None]


def test_any_impression_of_the_user_may_be_the_entity():
    rule = {"entity": "user_id", "click_through_days": "36h", "view_through_days": "36 hours"}
    values = DATASET.model_dump(mode="json") | {"attribution": {"checkout": rule}, "click_days": "12h"}
    dataset = DatasetConfig.parse(values, "dataset")
    assert dataset.attribution["checkout"].view_through_days == 1.5 and dataset.maturity_days == 2
    shown = Events.of(impressions([row(1, 0, brand=8, item_id=8), row(2, 1, user_id=2)]))
    acted = [checkout(36), checkout(36.001), click(1, 12), click(1, 12.001) | {"action_id": 9}]
    rows = Attribution(shown, Events.of(actions(acted)), dataset).credited
    assert rows.tolist() == [0, 0, 0, -1], "the second within 36 hours of the click"


def test_ties_go_to_the_own_item_then_to_the_greatest_id():
    shown = [row(1, 0, item_id=7), row(2, 0, item_id=8), row(3, 0, item_id=9)]
    cart = checkout(1, action_type="add_to_cart", item_id=7)
    assert credited_ids(shown, [cart]) == [1]
    assert credited_ids(shown, [cart | {"item_id": 5}]) == [3]


def test_id_that_is_used_again_names_the_impression_shown_before():
    """Rows, not ids: whichever order the log has them in, and whoever else has the id."""
    shown = [row(1, 0), row(1, 50), row(1, 20, user_id=2), row(1, 80)]
    acted = [click(1, hours) | {"action_id": number} for number, hours in enumerate((3, 55, 50, 30, 81))]
    for order in ([0, 1, 2, 3], [3, 2, 1, 0]):
        log = [shown[number] for number in order]
        rows = Attribution(Events.of(impressions(log)), Events.of(actions(acted)), DATASET).credited
        assert [log[row]["timestamp"] // HOUR if row >= 0 else None for row in rows] == [0, 50, 50, None, 80]
    assert credited_ids([row(1, 5)], [click(1, 4)]) == [None]
    assert credited_ids([row(1, 5, user_id=2)], [click(1, 6)]) == [None]


def test_reason_is_known_of_every_action_that_is_credited_to_none():
    shown = [row(1, 0), row(2, 30)]
    acted = {
        "too_late": [click(1, 25), checkout(24.5) | {"timestamp": 115 * HOUR}],
        "no_impression": [
            *(click(9, 1), click(1, 5) | {"user_id": 2}, checkout(1, item_id=5), checkout(1, user_id=2)),
            # A day and more after all windows nothing is known of the impression any more.
            checkout(24.5) | {"timestamp": 200 * HOUR},
        ],
        "no_entity": [checkout(1, item_id=None)],
        "no_rule": [checkout(1, action_type="add_to_cart")],
        "": [click(1, 3), checkout(4)],
    }
    values = DATASET.model_dump(mode="json")
    del values["attribution"]["add_to_cart"]
    dataset = DatasetConfig.parse(values, "dataset")
    log = Events.of(actions([action for group in acted.values() for action in group]))
    reasons = Attribution(Events.of(impressions(shown)), log, dataset).why_unattributed()
    found = ["".join(name for name in reasons if reasons[name][number]) for number in range(len(log))]
    assert found == [name for name, group in acted.items() for _ in group]
    bare = Attribution(Events.of(impressions([])), log, dataset).why_unattributed()
    assert bare["no_impression"].sum() + bare["no_entity"].sum() + bare["no_rule"].sum() == len(log)


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
    found = label(2, acted, Attribution(Events.of(shown), acted, DATASET).credited, DATASET)
    assert found.clicked.tolist() == [1, 0]
    assert found.good_clicked.tolist() == [1, 0]
    assert found.checkouts.tolist() == [2, 0]
    assert found.add_to_carts.tolist() == [1, 0]
    assert found.conversion_value.tolist() == [6.5, 0.0]


@pytest.mark.parametrize(("shown", "acted"), [([], [checkout(1)]), ([row(1, 0)], [])])
def test_empty_logs(shown, acted):
    assert credited_ids(shown, acted) == [None] * len(acted)
