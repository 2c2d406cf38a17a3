"""What `init` makes of columns that companies have, by name and content."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import yaml

from cli.first_config import first_config
from cli.log_check import findings
from cli.log_facts import look_at_logs
from components.common.errors import InputError
from components.sources.config import FilesSource
from pipelines.config import load_config


def written(tmp_path: Path, lines: list[str], actions: list[str] | None = None) -> dict:
    (tmp_path / "shown.csv").write_text("\n".join(lines) + "\n")
    (tmp_path / "acted.csv").write_text("\n".join(actions or []) + "\n")
    shown = str(tmp_path / "shown.csv")
    return yaml.safe_load(first_config(shown, str(tmp_path / "acted.csv") if actions else shown, "Our Shop 1"))


def rows(text: str, num_days: int = 10, a_day: int = 30) -> list[str]:
    """Rows in which {n}, {d}, {u}, {i} are a number, a day, a user and an item, and {f} is 1 in every third."""
    numbers = range(num_days * a_day)
    return [text.format(n=n, d=1 + n // a_day, u=n % 7, i=n % 5, f=int(n % 3 == 0), g=int(n % 9 == 0)) for n in numbers]


def test_click_log_with_hours_as_numbers(tmp_path):
    """As a known contest's: hours as YYMMDDHH, a column that says whether a click followed."""
    log = ["id,click,hour,banner_pos,site_id,device_id,C1", *rows("9{n:05d},{f},1410{d:02d}07,{i},s{i},dev{u},5")]
    config = written(tmp_path, log)
    shown, acted = config["source"]["impressions"], config["source"]["actions"]
    assert shown["columns"]["timestamp"] == {"column": "hour", "format": "%y%m%d%H"}
    assert shown["columns"]["impression_id"] == {"column": "id", "type": "integer"}
    assert acted["flags"] == {"click": "click"} and acted["columns"]["action_type"] == "flag"
    assert acted["columns"]["source"] == {"constant": "onsite"}
    assert config["served"] == ["click"] and config["dataset"]["attribution"] == {}
    assert "banner_pos" in config["dataset"]["context_identifiers"] and "C1" not in str(config["dataset"])
    assert config["dataset"]["name"] == "our_shop"


def test_few_ids_are_exact_and_fewer_rows_than_ids_are_a_warning(tmp_path):
    log = ["id,click,hour,site_id,device_id,ad", *rows("9{n:05d},{f},1410{d:02d}07,s{i},dev{u},{i}")]
    config = written(tmp_path, log)
    of_users = next(feature for feature in config["features"]["categorical"] if feature["name"] == "user_id")
    assert of_users == {"name": "user_id", "exact": {"capacity": 16}}, "seven users, and room for as many again"
    said = {}
    for capacity in (16, 3):
        of_users["exact"]["capacity"] = capacity
        (tmp_path / "own.yaml").write_text(yaml.safe_dump(config))
        run = load_config(str(tmp_path / "own.yaml"))
        assert isinstance(run.source, FilesSource)
        said[capacity] = " ".join(one.text for one in findings(run, look_at_logs(run, run.source)))
    assert "exact.capacity" not in said[16] and "user_id: about 7 ids for exact.capacity = 3: the rarest" in said[3]


def test_numbers_with_gaps_are_flagged_and_what_comments_suggest_can_be_taken(tmp_path):
    log = [
        "id,click,hour,site_id,device_id,ad,bid,price",
        *rows("9{n:05d},{f},1410{d:02d}07,s{i},dev{u},{i},0.{n},{n}.5"),
    ]
    log[7] = log[7].rsplit(",", 1)[0] + ","
    features = written(tmp_path, log)["features"]
    assert features["numbers"] == ["bid", {"name": "price", "flag_absent": True}]
    assert features["since_last"] == ["any"]
    text = first_config(str(tmp_path / "shown.csv"), str(tmp_path / "shown.csv"), "own")
    taken, number = re.subn(r"# [^\n:]*: (- \{)", r"\1", text)
    (tmp_path / "own.yaml").write_text(taken)
    assert number == 2
    assert {"item_hour", "bid_range"} < {*load_config(str(tmp_path / "own.yaml")).features.categorical_names}


def test_fewer_rows_than_crossed_ids_are_a_warning(tmp_path):
    log = ["id,click,hour,site_id,device_id,ad", *rows("9{n:05d},{f},1410{d:02d}07,s{i},dev{u},{i}")]
    config = written(tmp_path, log)
    pair = {"name": "who_where", "crossed": ["user_id", "item_id"], "num_rows": 16}
    config["features"]["categorical"].append(pair)
    (tmp_path / "own.yaml").write_text(yaml.safe_dump(config))
    run = load_config(str(tmp_path / "own.yaml"))
    found = " ".join(one.text for one in findings(run, look_at_logs(run, run.source)))
    assert re.search(r"who_where: \d\d% of about 3\d ids share a row of 16 with others", found), "7 users, 5 items"


def test_search_results_with_two_labels(tmp_path):
    log = [
        "srch_id,date_time,visitor,prop_id,position,Price USD,click_bool,booking_bool",
        *rows("{n},2013-04-{d:02d} 10:00:00,v{u},{i},{i},{n}.5,{f},{g}"),
    ]
    config = written(tmp_path, log)
    assert config["source"]["actions"]["flags"] == {"click_bool": "click", "booking_bool": "checkout"}
    assert config["served"] == ["checkout_given_click"]
    assert config["dataset"]["context_numbers"] == ["Price_USD"]
    assert config["source"]["impressions"]["columns"]["Price_USD"] == "Price USD"
    assert list(config["dataset"]["attribution"]) == ["checkout"]


def test_stream_with_an_order_number_that_only_orders_have(tmp_path):
    stream = ["timestamp,visitorid,event,itemid,transactionid", *rows("14306{d:02d}{n:03d}000,{u},view,{i},")]
    stream += rows("14306{d:02d}{n:03d}500,{u},transaction,{i},{n}", a_day=5)
    stream += rows("14306{d:02d}{n:03d}400,{u},removefromcart,{i},", a_day=2)
    config = written(tmp_path, stream)
    acted = config["source"]["actions"]
    assert acted["action_types"] == {"transaction": "checkout", "removefromcart": "ignore"}
    assert acted["columns"]["action_id"]["sql"].startswith("concat_ws"), "not every action has an order number"
    assert acted["columns"]["source"] == {"constant": "offsite"}
    assert config["source"]["impressions"]["columns"]["timestamp"] == {"column": "timestamp", "unit": "ms"}
    assert "transactionid" not in config["dataset"]["context_identifiers"]


def test_two_logs_that_share_a_campaign(tmp_path):
    shown = ["Request ID,Event Time,User ID,Ad ID,campaign", *rows("r{n},2024-03-{d:02d}T08:00:00Z,u{u},{i},c{i}")]
    acted = ["Request ID,Event Time,User ID,Event Type,campaign,value"]
    acted += rows("r{n},2024-03-{d:02d}T09:00:00Z,u{u},Lead,c{i},{n}.25")
    config = written(tmp_path, shown, acted)
    columns = config["source"]["actions"]["columns"]
    assert columns["impression_id"] == "Request ID" and columns["source"] == {"constant": "onsite"}
    assert config["source"]["actions"]["action_types"] == {"Lead": "checkout"} and columns["value"] == "value"
    assert config["dataset"]["action_entities"] == ["campaign"]
    assert config["served"] == ["checkout_given_view"]


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        (["when,who,what", "2024-03-01,a,b"], "no column says which rows are views"),
        (
            ["a,b,clicked", "1,2,1"],
            "no column looks like timestamp or user_id or item_id; it has .*'clicked'",
        ),
    ],
)
def test_what_cannot_be_guessed_is_said(tmp_path, lines, said):
    with pytest.raises(InputError, match=said):
        written(tmp_path, lines)


def test_lists_are_averaged_and_lists_of_numbers_are_left(tmp_path):
    shown = [
        {
            "id": 9000 + n,
            "click": int(n % 3 == 0),
            "t": f"2024-05-{1 + n // 30:02d}T08:00:00Z",
            "user": f"u{n % 7}",
            "item": f"i{n % 5}",
            "categories": [f"c{n % 11}", f"c{n % 4}"][: n % 3],
            "scores": [0.5, n / 7],
        }
        for n in range(300)
    ]
    path = tmp_path / "shown.jsonl"
    path.write_text("\n".join(map(json.dumps, shown)))
    config = yaml.safe_load(first_config(str(path), str(path), "shop"))
    assert config["dataset"]["context_lists"] == ["categories"] and "scores" not in str(config)
    assert config["features"]["lists"] == [{"name": "categories", "exact": {"capacity": 32}, "length": 16}]
    (tmp_path / "own.yaml").write_text(yaml.safe_dump(config))
    run = load_config(str(tmp_path / "own.yaml"))
    assert isinstance(run.source, FilesSource) and not look_at_logs(run, run.source).logs["impressions"].faulty
