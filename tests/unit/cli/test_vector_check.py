"""`check` says whose vectors are delivered, before anything is copied."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from cli.vector_check import vector_findings
from pipelines.config import load_config
from tests.conftest import small_values, write_config


@pytest.fixture()
def found(tmp_path):
    """Finds what `check` says of vectors of some items beside 40 impressions of items 0 to 9."""

    def of(ids, day="2026-01-05", **source):
        values = small_values()
        times = [datetime(2026, 1, 3, tzinfo=UTC) + timedelta(hours=6 * number) for number in range(40)]
        columns = dict.fromkeys(("campaign_id", "advertiser_id", "surface", "price", "quality"), [1] * 40)
        logs = pa.table({"impression_id": range(40), "timestamp": times, "user_id": [1] * 40, **columns})
        logs = logs.append_column("item_id", pa.array([number % 10 for number in range(40)]))
        pq.write_table(logs, tmp_path / "impressions.parquet")
        uri = {"uri": str(tmp_path / "impressions.parquet")}
        delivered = tmp_path / "text" / f"event_date={day}"
        delivered.mkdir(parents=True)
        vectors = pa.table({"item_id": ids, "vector": [[1.0, 2.0]] * len(ids)})
        pq.write_table(vectors, delivered / "part.parquet")
        for name in ("context_lists", "context_list_weights"):
            del values["dataset"][name]
        values["source"] = {"kind": "files", "impressions": uri, "actions": uri}
        values["features"] |= {"vectors": [{"name": "text", "entity": "item_id", "dim": 2}]}
        values["vectors"] = {"text": {"uri": str(tmp_path / "text"), **source}}
        config = load_config(str(write_config(tmp_path / "own.yaml", values)))
        return [(one.level, one.text) for one in vector_findings(config, config.source)]

    return of


def test_vectors_of_most_items_are_as_they_should_be(found):
    assert found([*range(8), None]) == [
        ("fact", "text: 1 deliveries, 2026-01-05 to 2026-01-05; 8 vectors of 2026-01-05 can be used, 1 not: no_id"),
        ("fact", "text: 80.0% of the impressions have a vector of their item_id"),
    ]


def test_vectors_of_few_items_that_came_late_are_warned_of(found):
    _, late, few = found([0, 1], day="2026-01-08")
    assert late[0] == "warning" and "impressions until 2026-01-08 know no vector" in late[1]
    assert few[0] == "warning" and "20.0% of the impressions" in few[1] and "vectors.text.id" in few[1]


def test_ids_of_another_type_and_no_delivery_stop_a_run(found):
    assert found(["0", "1"])[-1][0] == "stops"
    assert "ids are string, int64 in the log: say vectors.text.type: integer" in found(["0"], day="2026-01-06")[-1][1]
    assert found([0], day="2026-01-07", column="other")[0][0] == "stops"
