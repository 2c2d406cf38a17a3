import numpy as np
import pytest

from components.features.engagement import EngagementIndex, count_engagement, merge_engagement
from components.features.feature_kinds import EngagementFeatures
from components.features.log_events import Events
from tests.unit.join.logs import DAY, actions, impressions


def shown(day, item, count=1):
    base = {"user_id": 1, "item_id": item, "brand": 1, "timestamp": day * DAY + 5}
    return [base | {"impression_id": day * 1000 + item * 100 + i} for i in range(count)]


def acted(day, item, kind):
    return {
        "action_id": 1,
        "timestamp": day * DAY + 9,
        "user_id": 1,
        "item_id": item,
        "action_type": kind,
        "source": "offsite",
    }


def rates(target_day, item, impression_rows, action_rows, window_days=3):
    parts = [
        count_engagement("impressions", Events.of(impressions(impression_rows)), ("item_id",)),
        count_engagement("actions", Events.of(actions(action_rows)), ("item_id",)),
    ]
    target = Events.of(impressions(shown(target_day, item)))
    config = EngagementFeatures(entities=("item_id",), window_days=window_days, smoothing=2.0)
    return {
        name: float(v[0]) for name, v in EngagementIndex.of(merge_engagement(parts), config).columns(target).items()
    }


def test_rate_is_smoothed_towards_the_overall_rate():
    found = rates(5, 1, shown(4, 1, 4) + shown(4, 2, 6), [acted(4, 1, "checkout")])
    assert found["item_id_impressions"] == 4
    assert found["item_id_checkout_rate"] == pytest.approx((1 + 2.0 * 0.1) / (4 + 2.0))
    assert found["item_id_click_rate"] == 0


def test_same_day_and_days_before_the_window_are_not_seen():
    found = rates(5, 1, shown(5, 1, 4) + shown(1, 1, 4), [acted(5, 1, "click"), acted(1, 1, "click")])
    assert set(found.values()) == {0.0}


def test_merging_order_does_not_matter():
    parts = [
        count_engagement("impressions", Events.of(impressions(shown(day, item, 3))), ("item_id", "brand"))
        for day in (1, 2)
        for item in (1, 2)
    ]
    merged = merge_engagement([merge_engagement(parts[:3]), parts[3]])
    assert merged.equals(merge_engagement(parts[::-1]))
    assert np.sum(merged["impressions"].to_numpy()) == 24
