"""Logs as companies have them: formats, layouts, times, values and users, each read into the contract's terms."""

from __future__ import annotations

import json
from datetime import date
from pathlib import Path

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from components.common import parquet_files, storage
from components.common.errors import InputError
from components.common.layout import Store
from components.common.manifests import read_manifest
from components.features.events import ACTIONS, IMPRESSIONS, DatasetConfig
from components.features.log_manifests import LOG_FILE, DeliveredLogManifest
from components.make_logs.run import make_logs
from components.sources.config import parse_source
from components.sources.log_days import last_day

FIRST, SECOND = date(2024, 3, 1), date(2024, 3, 2)
SHOWN = ["imp,t,who,sku", "1,2024-03-01T10:00:00Z,7,3", "2,2024-03-01 23:30:00,8,4", "3,2024-03-02T00:30:00+02:00,7,4"]
ACTED = ["act,t,who,sku,what,imp", "1,2024-03-01T10:00:05Z,7,3,buy,1", "2,2024-03-01T11:00:00Z,7,3,fav,1"]
COLUMNS = {
    IMPRESSIONS: {"impression_id": "imp", "timestamp": "t", "user_id": "who", "item_id": "sku"},
    ACTIONS: {
        "action_id": "act",
        "timestamp": "t",
        "user_id": "who",
        "item_id": "sku",
        "impression_id": "imp",
        "action_type": "what",
        "source": {"constant": "onsite"},
    },
}


def dataset_of(**more: object) -> DatasetConfig:
    return DatasetConfig.parse({"name": "shop", "first_day": FIRST, "attribution": {}, **more}, "dataset")


def text_log(folder: Path, shown: list[str] = SHOWN, acted: list[str] = ACTED) -> dict:
    """Both logs as CSV, and the source that reads them."""
    folder.mkdir(exist_ok=True)
    (folder / "shown.csv").write_text("\n".join(shown) + "\n")
    (folder / "acted.csv").write_text("\n".join(acted) + "\n")
    return source_of(folder / "shown.csv", folder / "acted.csv")


def source_of(shown: Path | str, acted: Path | str) -> dict:
    return {
        "kind": "files",
        IMPRESSIONS: {"uri": str(shown), "columns": dict(COLUMNS[IMPRESSIONS])},
        ACTIONS: {
            "uri": str(acted),
            "columns": dict(COLUMNS[ACTIONS]),
            "action_types": {"buy": "checkout", "fav": "ignore"},
        },
    }


def read(store: Store, log_name: str, day: date) -> list[dict]:
    rows: list[dict] = []
    manifest = read_manifest(store.delivered_logs(log_name, day), DeliveredLogManifest)
    for entry in manifest.files:
        uri = storage.join_uri(store.delivered_logs(log_name, day), entry.name)
        rows += parquet_files.read_parquet(uri).to_pylist()
    return rows


def copied(tmp_path: Path, source: dict, days: list[date], **more: object) -> Store:
    store = Store(str(tmp_path / "store"))
    make_logs(store.root, dataset_of(**more), source, days)
    return store


def test_one_csv_is_split_into_days_with_every_time_in_utc(tmp_path):
    store = copied(tmp_path, text_log(tmp_path / "logs"), [FIRST])
    assert [row["impression_id"] for row in read(store, IMPRESSIONS, FIRST)] == ["1", "2", "3"], "22:30 UTC is the 1st"
    assert [(row["action_type"], row["source"]) for row in read(store, ACTIONS, FIRST)] == [("checkout", "onsite")]
    manifest = read_manifest(store.delivered_logs(ACTIONS, FIRST), DeliveredLogManifest)
    assert manifest.left_out == {"action_type fav": 1}
    with pytest.raises(InputError, match="no impressions of 2024-03-02; deliver them, or list such days"):
        copied(tmp_path, text_log(tmp_path / "logs"), [FIRST, SECOND])


def test_days_begin_by_the_clocks_of_the_time_zone(tmp_path):
    store = copied(tmp_path, text_log(tmp_path / "logs"), [FIRST, SECOND], timezone="Europe/Berlin")
    assert [row["impression_id"] for row in read(store, IMPRESSIONS, FIRST)] == ["1", "3"]
    late = read(store, IMPRESSIONS, SECOND)
    assert [row["timestamp"].isoformat() for row in late] == ["2024-03-02T00:30:00+00:00"], "the clock's, not UTC's"


@pytest.mark.parametrize(
    ("write", "suffix"),
    [
        (lambda rows, path: path.write_text("".join(json.dumps(row) + "\n" for row in rows)), "jsonl"),
        (lambda rows, path: pq.write_table(pa.Table.from_pylist(rows), path), "PARQUET"),
        (lambda rows, path: path.write_text("\n".join(map("\t".join, [rows[0], *map(dict.values, rows)]))), "tsv"),
    ],
    ids=["json lines", "parquet in capitals", "tabs"],
)
def test_every_format_gives_the_same_rows(tmp_path, write, suffix):
    expected = read(copied(tmp_path / "csv", text_log(tmp_path / "logs"), [FIRST]), IMPRESSIONS, FIRST)
    folder = tmp_path / "nested" / "deeper"
    folder.mkdir(parents=True)
    rows = [dict(zip(SHOWN[0].split(","), line.split(","), strict=True)) for line in SHOWN[1:]]
    write(rows, folder / f"part.{suffix}")
    (folder / "_SUCCESS").write_text("")
    source = source_of(tmp_path / "nested", tmp_path / "logs" / "acted.csv")
    assert read(copied(tmp_path, source, [FIRST]), IMPRESSIONS, FIRST) == expected


@pytest.mark.parametrize(
    ("texts", "options"),
    [
        (["1709287200", "1709335800"], {"unit": "s"}),
        (["1709287200000", "1709335800000.0"], {"unit": "ms"}),
        (["01/03/2024 10:00", "01/03/2024 23:30"], {"format": "%d/%m/%Y %H:%M"}),
        (["2024-03-01 05:00:00", "2024-03-01 18:30:00"], {"zone": "America/New_York"}),
    ],
)
def test_times_are_read_as_the_options_say(tmp_path, texts, options):
    shown = [SHOWN[0], *(f"{number},{text},7,3" for number, text in enumerate(texts))]
    source = text_log(tmp_path / "logs", shown)
    source[IMPRESSIONS]["columns"]["timestamp"] = {"column": "t", **options}
    rows = read(copied(tmp_path, source, [FIRST]), IMPRESSIONS, FIRST)
    assert [row["timestamp"].strftime("%H:%M") for row in rows] == ["10:00", "23:30"]


@pytest.mark.parametrize("zone", [None, "UTC", "America/New_York"])
@pytest.mark.parametrize("unit", ["s", "ms", "us", "ns"])
def test_every_kind_of_parquet_timestamp_is_read(tmp_path, unit, zone):
    text_log(tmp_path / "logs")
    moments = pa.array([1709287200, 1709335800], pa.timestamp("s")).cast(pa.timestamp(unit, tz=zone))
    rows = {"imp": [1, 2], "t": moments, "who": [7, 8], "sku": [3, 4]}
    pq.write_table(pa.table(rows), tmp_path / "logs" / "shown.parquet")
    source = source_of(tmp_path / "logs" / "shown.parquet", tmp_path / "logs" / "acted.csv")
    found = read(copied(tmp_path, source, [FIRST]), IMPRESSIONS, FIRST)
    assert [row["timestamp"].strftime("%H:%M") for row in found] == ["10:00", "23:30"]


def test_zones_at_both_ends_of_the_world_lose_no_row(tmp_path):
    """A time of the farthest west, in days of the farthest east: the clock says the day before yesterday."""
    source = text_log(tmp_path / "logs", [SHOWN[0], "1,2024-02-28 22:30:00,7,3"])
    source[IMPRESSIONS]["columns"]["timestamp"] = {"column": "t", "zone": "Etc/GMT+12"}
    store = copied(tmp_path, source, [FIRST], timezone="Pacific/Kiritimati")
    assert [row["timestamp"].strftime("%d %H:%M") for row in read(store, IMPRESSIONS, FIRST)] == ["01 00:30"]


@pytest.mark.parametrize(
    ("text", "options", "said"),
    [
        ("1709287200000", {"unit": "s"}, "is no time since 1980 in s; say the unit: .*unit: ms"),
        ("1709287200", {}, "is no time of ISO 8601|number without a unit"),
        ("March 1st", {}, "is no time of ISO 8601; give its format"),
    ],
)
def test_times_that_cannot_be_read_are_shown(tmp_path, text, options, said):
    source = text_log(tmp_path / "logs", [SHOWN[0], f"1,{text},7,3"])
    source[IMPRESSIONS]["columns"]["timestamp"] = {"column": "t", **options}
    with pytest.raises(
        InputError, match=f"shown.csv: column 't' for 'timestamp' holds times such as '{text}', which {said}"
    ):
        copied(tmp_path, source, [FIRST])


@pytest.mark.parametrize(
    ("policy", "users"), [("drop", ["7"]), ("own_user", ["7", "impression 2"]), ("quarantine", ["7", None])]
)
def test_users_without_an_id(tmp_path, policy, users):
    source = text_log(tmp_path / "logs", [SHOWN[0], SHOWN[1], "2,2024-03-01T12:00:00Z,,4"])
    store = copied(tmp_path, source, [FIRST], users_without_id=policy)
    assert [row["user_id"] for row in read(store, IMPRESSIONS, FIRST)] == users
    manifest = read_manifest(store.delivered_logs(IMPRESSIONS, FIRST), DeliveredLogManifest)
    assert manifest.left_out == ({"no user_id": 1} if policy == "drop" else {})


def test_users_that_are_whole_floats_become_integers_with_own_ids_below_zero(tmp_path):
    """As pandas writes integers beside missing values."""
    rows = {"imp": [1, 2], "t": [1709287200, 1709287201], "who": [7.0, None], "sku": [3, 4]}
    (tmp_path / "logs").mkdir()
    pq.write_table(pa.table(rows), tmp_path / "logs" / "shown.parquet")
    text_log(tmp_path / "logs")
    source = source_of(tmp_path / "logs" / "shown.parquet", tmp_path / "logs" / "acted.csv")
    source[IMPRESSIONS]["columns"]["timestamp"] = {"column": "t", "unit": "s"}
    store = copied(tmp_path, source, [FIRST], users_without_id="own_user")
    assert [row["user_id"] for row in read(store, IMPRESSIONS, FIRST)] == [7, -3]


def test_query_is_asked_for_days(tmp_path):
    text_log(tmp_path / "logs")
    shared = "t AS timestamp, who AS user_id, sku AS item_id, imp AS impression_id"
    shown, acted = (f"FROM '{tmp_path}/logs/{name}.csv'" for name in ("shown", "acted"))
    source = {
        "kind": "sql",
        "queried_again_days": 0,
        IMPRESSIONS: {"query": f"SELECT {shared} {shown};"},
        ACTIONS: {"query": f"SELECT {shared}, act AS action_id, 'click' AS action_type, 'onsite' AS source {acted}"},
    }
    store = copied(tmp_path, source, [FIRST])
    assert [row["impression_id"] for row in read(store, IMPRESSIONS, FIRST)] == [1, 2, 3]
    text_log(tmp_path / "logs", [SHOWN[0], "9,2024-04-01T10:00:00Z,7,3"])
    known = read(copied(tmp_path, source, [FIRST]), IMPRESSIONS, FIRST)
    assert len(known) == 3, "a day that is there is not asked for"
    with pytest.raises(InputError, match="no impressions of 2024-03-01"):
        copied(tmp_path, source | {"queried_again_days": 1}, [FIRST])
    fsspec.filesystem("memory").pipe_file("/logs/shown.csv", "\n".join(SHOWN).encode())
    remote = source | {IMPRESSIONS: {"query": f"SELECT {shared} FROM 'memory://logs/shown.csv'"}}
    assert len(read(copied(tmp_path / "remote", remote, [FIRST]), IMPRESSIONS, FIRST)) == 3
    with pytest.raises(InputError, match="nowhere://: Protocol not known"):
        copied(tmp_path, source | {IMPRESSIONS: {"query": "SELECT * FROM 'nowhere://x.csv'"}}, [SECOND])
    with pytest.raises(InputError, match="source.impressions.query: not readable .*nowhere"):
        copied(tmp_path, source | {IMPRESSIONS: {"query": "SELECT * FROM nowhere"}}, [SECOND])


def test_files_are_told_apart_and_days_rewritten_only_when_they_changed(tmp_path):
    source = text_log(tmp_path / "logs")
    first = copied(tmp_path, source, [FIRST])
    before = Path(first.delivered_logs(IMPRESSIONS, FIRST), LOG_FILE).read_bytes()
    assert make_logs(first.root, dataset_of(), source, [FIRST]) == {IMPRESSIONS: 0, ACTIONS: 0}
    text_log(tmp_path / "logs", [*SHOWN, "4,2024-03-02T12:00:00Z,9,3"])
    assert make_logs(first.root, dataset_of(), source, [FIRST, SECOND])[IMPRESSIONS] == 4
    assert Path(first.delivered_logs(IMPRESSIONS, FIRST), LOG_FILE).read_bytes() == before, "same rows, same bytes"
    (tmp_path / "logs" / "other.jsonl").write_text("{}\n")
    source[IMPRESSIONS]["uri"] = str(tmp_path / "logs")
    with pytest.raises(InputError, match=r"holds csv \(acted.csv\) and json \(other.jsonl\); name the files"):
        copied(tmp_path, source, [FIRST])


def test_flat_files_beside_missing_folders_are_named(tmp_path):
    text_log(tmp_path / "logs")
    folder = tmp_path / "logs" / f"event_date={FIRST}"
    folder.mkdir()
    (tmp_path / "logs" / "shown.csv").rename(folder / "shown.csv")
    source = source_of(tmp_path / "logs", tmp_path / "logs" / "acted.csv")
    with pytest.raises(InputError, match=r"event_date=2024-03-02: no Parquet.*beside the folders .* acted.csv, which"):
        copied(tmp_path, source, [FIRST, SECOND])


def test_last_day_is_the_one_that_both_logs_reach(tmp_path):
    source = text_log(tmp_path / "logs", [*SHOWN, "4,2024-03-05T12:00:00Z,9,3"])
    assert last_day(parse_source(source, "source"), dataset_of()) == FIRST
    source = text_log(tmp_path / "logs", SHOWN, [*ACTED, "9,2024-03-05T12:00:00Z,9,3,buy,1"])
    assert last_day(parse_source(source, "source"), dataset_of()) == FIRST
    assert last_day(parse_source(source, "source"), dataset_of(timezone="Europe/Berlin")) == SECOND


LISTS = {"context_lists": ["tags"], "context_list_weights": {"tags": "tag_weights"}}


def list_source(tmp_path: Path, tags: object, weights: object) -> dict:
    """Logs whose first and last impressions have lists of tags in JSON, or as text."""
    shown = [
        {"imp": number, "t": f"2024-03-01T1{number}:00:00Z", "who": 7, "sku": 3, "tags": tags, "w": weights}
        for number in range(3)
    ]
    shown[1] |= {"tags": None, "w": None}
    (tmp_path / "shown.jsonl").write_text("\n".join(map(json.dumps, shown)))
    source = text_log(tmp_path)
    source[IMPRESSIONS]["uri"] = str(tmp_path / "shown.jsonl")
    source[IMPRESSIONS]["columns"] |= {"tag_weights": "w"}
    return source


@pytest.mark.parametrize(
    ("tags", "weights", "separator", "expected"),
    [
        ([4, 12], [1, 0.5], None, ([4, 12], [1.0, 0.5])),
        (["a", "b c"], [1, 2], None, (["a", "b c"], [1.0, 2.0])),
        ("a|b c", "1|2.5", "|", (["a", "b c"], [1.0, 2.5])),
        ([], [], None, ([], [])),
    ],
)
def test_lists_are_read_from_lists_and_from_text(tmp_path, tags, weights, separator, expected):
    source, store = list_source(tmp_path, tags, weights), Store(str(tmp_path / "store"))
    if separator:
        for name, column in (("tags", "tags"), ("tag_weights", "w")):
            source[IMPRESSIONS]["columns"][name] = {"column": column, "separator": separator}
    make_logs(store.root, dataset_of(**LISTS), source, [FIRST])
    found = [(row["tags"], row["tag_weights"]) for row in read(store, IMPRESSIONS, FIRST)]
    assert found == [expected, (None, None), expected]


def test_text_without_a_separator_is_no_list(tmp_path):
    source = list_source(tmp_path, "a|b", "1|2")
    with pytest.raises(InputError, match=r"column 'tags' for 'tags' is VARCHAR, expected a list; .*separator: '\|'"):
        make_logs(str(tmp_path / "store"), dataset_of(**LISTS), source, [FIRST])


def test_separator_is_for_lists(tmp_path):
    source = text_log(tmp_path)
    source[IMPRESSIONS]["columns"]["item_id"] = {"column": "sku", "separator": "|"}
    with pytest.raises(InputError, match="for 'item_id' has a separator, but is no list; declare it under"):
        make_logs(str(tmp_path / "store"), dataset_of(), source, [FIRST])
