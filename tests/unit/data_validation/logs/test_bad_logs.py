"""What becomes of logs that are not as they should be: a clear error, or quarantine with a reason and a count."""

from __future__ import annotations

from datetime import date, timedelta
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from components.common import parquet_files, storage
from components.common.errors import InputError
from components.common.layout import Store
from components.common.manifests import read_manifest
from components.features.events import ACTIONS, IMPRESSIONS
from components.features.log_manifests import LOG_FILE, CleanLogManifest
from components.make_logs.run import make_logs
from data_validation.config import ValidationConfig
from data_validation.logs.remedies import remedy
from data_validation.logs.row_checks import conform, sort_rows
from data_validation.logs.validate import validate_logs
from tests.unit.data_validation.logs.corrupt import CASES, at_row, with_column
from tests.unit.join.logs import DATASET, HOUR, actions, impressions

DAY = date(2026, 3, 2)
DAYS = [DAY - timedelta(days=1), DAY]
START = (DAYS[0] - date(1970, 1, 1)).days * 24 * HOUR
PLENTY = ValidationConfig(max_quarantined_share=1.0)


class Delivery:
    """A company's own folders of Parquet, two days, and what Afterclick makes of them."""

    def __init__(self, root):
        self.root, self.store = root / "delivered", Store(str(root / "store"))
        self.impressions = [
            {
                "impression_id": number,
                "timestamp": START + number * HOUR,
                "user_id": number % 7,
                "item_id": 1,
                "brand": 1,
            }
            for number in range(48)
        ]
        self.actions = [
            {
                "action_id": number,
                "timestamp": START + number * HOUR + HOUR // 2,
                "user_id": number % 7,
                "item_id": 1,
                "brand": 1,
                "action_type": "click",
                "source": "onsite",
                "impression_id": number,
                "dwell_seconds": 5.0,
            }
            for number in range(48)
        ]

    def path(self, table, day):
        return self.root / table / f"event_date={day}" / "rows.parquet"

    def write(self, edit=None):
        """Write both logs, `edit(log_name, day, table)` may change each day's rows."""
        for name, rows, build in (
            (IMPRESSIONS, self.impressions, impressions),
            (ACTIONS, self.actions, actions),
        ):
            for offset, day in enumerate(DAYS):
                table = build(rows[offset * 24 : (offset + 1) * 24], dataset=DATASET)
                table = edit(name, day, table) if edit else table
                self.path(name, day).parent.mkdir(parents=True, exist_ok=True)
                if table is not None:
                    pq.write_table(table, self.path(name, day))

    def validate(self, config=PLENTY, as_of=DAY + timedelta(days=1)):
        dataset = DATASET.model_copy(update={"first_day": DAYS[0]})
        source = {"kind": "parquet"} | {name: {"uri": str(self.root / name)} for name in (IMPRESSIONS, ACTIONS)}
        make_logs(self.store.root, dataset, source, DAYS)
        return validate_logs(self.store.root, dataset, config, DAYS, as_of)

    def counts(self, table, day=DAY):
        """Delivered and clean rows, and rejected ones by reason."""
        manifest = read_manifest(self.store.clean_logs(table, day), CleanLogManifest)
        return manifest.delivered, manifest.rows, manifest.quarantined

    def quarantined(self, table, day=DAY):
        return parquet_files.read_parquet(storage.join_uri(self.store.quarantine(table, day), LOG_FILE))


@pytest.fixture()
def delivery(tmp_path):
    return Delivery(tmp_path)


def on(target_table, change):
    """An edit of the newer day of one log."""
    return lambda name, day, table: change(table) if name == target_table and day == DAY else table


def test_good_logs_pass_whole(delivery):
    delivery.write()
    page = delivery.validate(ValidationConfig())
    assert "values must be unique" in page and "unexpected values found" not in page
    assert delivery.counts(IMPRESSIONS) == (24, 24, {})
    assert not storage.exists(delivery.store.quarantine(IMPRESSIONS, DAY))


@pytest.mark.parametrize("case", [case for case in CASES if case.reason], ids=lambda case: case.title)
def test_bad_row_goes_to_quarantine_with_reason_file_and_row(delivery, case):
    delivery.write(on(case.table, case.change))
    delivery.validate(PLENTY.model_copy(update={"max_user_rows_per_day": 15}))
    kept, bad = 24 - case.num_rows, case.num_rows
    assert delivery.counts(case.table) == (24, kept, {case.reason: bad})
    rejected = delivery.quarantined(case.table).to_pylist()
    assert {(row["reason"], row["file"]) for row in rejected} == {(case.reason, "rows.parquet")}
    assert [row["row"] for row in rejected] == ([3] if bad == 1 else list(range(bad)))


@pytest.mark.parametrize("case", [case for case in CASES if case.error], ids=lambda case: case.title)
def test_unusable_day_stops_the_run_with_a_clear_error(delivery, case):
    delivery.write(on(case.table, case.change))
    with pytest.raises(InputError, match=case.error):
        delivery.validate()


def test_documentation_lists_every_case_with_its_outcome():
    of_logs = Path("docs/bad_input.md").read_text().split("\n# ")[0]
    rows = [line.strip("| \n").split(" | ") for line in of_logs.splitlines() if line.startswith("| ")]
    outcomes = {row[0]: row[2] for row in rows[1:]}
    for case in CASES:
        assert outcomes.pop(case.title) == (f"quarantine: `{case.reason}`" if case.reason else "stops")
    # The others are deliveries as a whole, which tests of their own take apart.
    assert sorted(outcomes) == [
        "a file is cut off",
        "a file is no Parquet",
        "more rows are bad than max_quarantined_share",
    ]


def test_truncated_file_is_named(delivery):
    delivery.write()
    path = delivery.path(ACTIONS, DAY)
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(InputError, match=r"delivered/actions/event_date=2026-03-02/rows\.parquet: not readable"):
        delivery.validate()


def test_file_that_is_no_parquet_is_named(delivery):
    delivery.write()
    delivery.path(ACTIONS, DAY).write_text("action_id,timestamp\n1,2026-03-02\n")
    with pytest.raises(InputError, match=r"event_date=2026-03-02/rows\.parquet: not readable"):
        delivery.validate()


def test_share_of_bad_rows_above_the_limit_stops_the_run(delivery):
    delivery.write(on(IMPRESSIONS, at_row("user_id", None)))
    with pytest.raises(InputError, match=r"4.2% .* at most 1.0% .*missing_user_id: on 2026-03-02 row 3 of rows"):
        delivery.validate(ValidationConfig(max_quarantined_share=0.01))


def test_run_that_was_stopped_is_stopped_again(delivery):
    delivery.write(on(IMPRESSIONS, at_row("user_id", None)))
    for _ in range(2):
        with pytest.raises(InputError, match="expectations"):
            delivery.validate(ValidationConfig(max_quarantined_share=0.01))


def test_corrected_delivery_replaces_the_day(delivery):
    delivery.write(on(IMPRESSIONS, at_row("user_id", None)))
    delivery.validate()
    delivery.write()
    delivery.validate(ValidationConfig())
    assert delivery.counts(IMPRESSIONS)[1] == 24
    assert not storage.exists(delivery.store.quarantine(IMPRESSIONS, DAY))


def test_absent_optional_columns_become_nulls(delivery):
    delivery.write(lambda name, day, table: table.drop_columns("value") if name == ACTIONS else table)
    delivery.validate(ValidationConfig())
    clean = parquet_files.read_parquet(storage.join_uri(delivery.store.clean_logs(ACTIONS, DAY), LOG_FILE))
    assert clean["value"].null_count == 24


def test_good_row_is_not_lost_as_the_double_of_a_bad_one(delivery):
    def double(table):
        bad = at_row("user_id", None, row=0)(table.slice(3, 1))
        return pa.concat_tables([bad, table])

    delivery.write(on(IMPRESSIONS, double))
    delivery.validate()
    assert delivery.counts(IMPRESSIONS) == (25, 24, {"missing_user_id": 1})


def test_nanoseconds_are_cut(delivery):
    def finer(table):
        nanoseconds = pa.array(table["timestamp"].cast(pa.int64()).to_numpy() * 1000 + 7, pa.int64())
        return with_column(table, "timestamp", nanoseconds.cast(pa.timestamp("ns", tz="UTC")))

    delivery.write(on(IMPRESSIONS, finer))
    delivery.validate(ValidationConfig())
    clean = parquet_files.read_parquet(storage.join_uri(delivery.store.clean_logs(IMPRESSIONS, DAY), LOG_FILE))
    assert clean["timestamp"].cast(pa.int64()).to_pylist() == [START + (24 + i) * HOUR for i in range(24)]


def test_column_without_values_has_no_type_to_disagree(delivery):
    """A day without onsite actions names no impression; strings elsewhere are no contradiction."""

    def no_clicks(table):
        table = with_column(table, "impression_id", pa.nulls(24))
        return with_column(table, "source", pa.array(["offsite"] * 24))

    delivery.write(on(ACTIONS, no_clicks))
    delivery.validate(ValidationConfig())
    assert delivery.counts(ACTIONS)[1] == 24


def test_lists_that_cannot_be_used_go_to_quarantine():
    lists = {"context_lists": ["tags"], "context_list_weights": {"tags": "tag_weights"}}
    dataset = DATASET.model_copy(update=lists)
    rows = [
        {"tags": [1, 2], "tag_weights": [0.5, 0.0]},
        {"tags": [], "tag_weights": []},
        {},
        {"tags": [1, None], "tag_weights": [1.0, 1.0]},
        {"tags": [1, 2], "tag_weights": [1.0]},
        {"tags": [1], "tag_weights": [-1.0]},
        {"tags": [1, 2], "tag_weights": [1.0, float("nan")]},
        {"tags": [1, 2]},
    ]
    shown = [
        row | {"impression_id": number, "timestamp": START + HOUR, "user_id": 1, "item_id": 1}
        for number, row in enumerate(rows)
    ]
    table = conform(impressions(shown, dataset=dataset), IMPRESSIONS, dataset, "shown")
    table = table.append_column("file", pa.array(["f"] * len(rows))).append_column("row", pa.array(range(len(rows))))
    found = sort_rows(table, IMPRESSIONS, dataset, DAYS[0], DAY, 100)
    assert found.clean["impression_id"].to_pylist() == [0, 1, 2]
    assert dict(
        zip(found.rejected["impression_id"].to_pylist(), found.rejected["reason"].to_pylist(), strict=True)
    ) == {
        3: "gap_in_tags",
        4: "not_one_a_value_in_tag_weights",
        5: "no_weight_in_tag_weights",
        6: "no_weight_in_tag_weights",
        7: "not_one_a_value_in_tag_weights",
    }
    said = remedy("no_weight_in_tag_weights", found.rejected.slice(2), IMPRESSIONS)
    assert said == "row 5 of f has tag_weights [-1.0]; correct it at the source"
    with pytest.raises(InputError, match="'tags' of impressions is int64, expected a list of integers or of strings"):
        conform(table.set_column(table.column_names.index("tags"), "tags", table["row"]), IMPRESSIONS, dataset, "shown")
