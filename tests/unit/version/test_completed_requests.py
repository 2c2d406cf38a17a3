"""Requests with what they lack from elsewhere, in this process."""

from __future__ import annotations

import numpy as np
import pytest

from components.common.errors import InputError
from components.features.feature_list import FeatureConfig
from components.features.hashed_actions import HashedActions
from components.features.hashing import hash_identifiers
from components.features.online_features import KnownOnline
from components.version.request import Limits, RequestContract

HOUR, NOON = 3_600_000_000, 1_767_614_400_000_000
LACKING = Limits(lacking_engagement=True)
FEATURES = FeatureConfig.parse(
    {
        "categorical": [{"name": "item_id", "num_rows": 10}],
        "engagement": {"entities": ["item_id", "brand"]},
    },
    "features",
)
IDENTIFIERS = {"impressions": dict.fromkeys(("user_id", "item_id", "brand"), "int64")}
IDENTIFIERS["actions"] = dict.fromkeys(("action_id", "item_id"), "int64")
CONTRACT = RequestContract(FEATURES, IDENTIFIERS)


def integers(*values: int) -> np.ndarray:
    return np.array(values, dtype=np.int64)


def tensors(*hours_ago: int, **more: np.ndarray) -> dict[str, np.ndarray]:
    plain = {"user_id": integers(1), "timestamp": integers(NOON), "item_id": integers(5, 6), "brand": integers(8, 9)}
    acted = {"actions.timestamp": NOON - HOUR * integers(*hours_ago), "actions.action_id": integers(*hours_ago)}
    acted |= {"actions.action_type": np.array([b"click"] * len(hours_ago), dtype=object)}
    return plain | (acted if hours_ago else {}) | more


def known(*hours_ago: int) -> KnownOnline:
    size, none = len(hours_ago), np.zeros(len(hours_ago), dtype=np.uint64)
    actions = HashedActions(none, NOON - HOUR * integers(*hours_ago), np.zeros(size, np.int8), none, {"item_id": none})
    names = FEATURES.engagement_names
    return KnownOnline(actions, {name: np.full(2, number, np.float32) for number, name in enumerate(names)})


@pytest.mark.parametrize(
    ("sent", "stored", "counted"),
    [
        ((), (30, 20), [30, 20]),
        ((3, 2), (30, 20), [30, 20, 3, 2]),
        ((20, 3), (30, 20), [30, 20, 3]),
        ((25, 2), (30, 20), [30, 25, 2]),
        ((40, 2), (30, 20), [40, 2]),
        ((3,), (), [3]),
    ],
)
def test_stored_actions_count_before_the_first_that_is_sent(sent, stored, counted):
    request = CONTRACT.read(tensors(*sent), LACKING).completed(known(*stored))
    assert sorted((NOON - request.actions.times) // HOUR, reverse=True) == counted


def test_engagement_that_is_sent_overrides_what_is_known():
    sent = np.array([0.5, 0.75])
    request = CONTRACT.read(tensors(item_id_click_rate=sent), LACKING)
    assert [*CONTRACT.entities(request)] == ["item_id", "brand"]
    completed = request.completed(known())
    CONTRACT.check_complete(completed)
    assert np.array_equal(completed.given["item_id_click_rate"], sent)
    assert CONTRACT.dense(completed).shape == (2, FEATURES.num_dense)
    assert completed.given.keys() == {*FEATURES.engagement_names}


def test_entities_are_asked_for_while_their_engagement_is_not_all_there():
    """Also one that no other feature reads, which a request may carry for this alone."""
    own = {name: np.ones(2) for name in FEATURES.engagement_names if name.startswith("item_id")}
    entities = CONTRACT.entities(CONTRACT.read(tensors(**own), LACKING))
    assert entities.keys() == {"brand"} and np.array_equal(entities["brand"], hash_identifiers(integers(8, 9)))
    whole = {name: np.ones(2) for name in FEATURES.engagement_names}
    assert CONTRACT.entities(CONTRACT.read(tensors(**whole), LACKING)) == {}


def test_engagement_that_nobody_has_is_named():
    with pytest.raises(InputError, match="candidates are missing: item_id_impressions FP32"):
        CONTRACT.read(tensors(), Limits())
    with pytest.raises(InputError, match="candidates are missing: item_id_impressions FP32"):
        CONTRACT.check_complete(CONTRACT.read(tensors(), LACKING))
