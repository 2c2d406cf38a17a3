"""Every kind of bad input that docs/bad_input.md lists, and how it is made from a good delivery."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from components.features.events import ACTIONS, IMPRESSIONS
from tests.unit.join.logs import HOUR

Change = Callable[[pa.Table], pa.Table | None]


@dataclass(frozen=True)
class Case:
    """One kind of bad input.

    Attributes:
        title: As in the documentation's table.
        table: Which log it is in.
        change: Makes it from a good day; None deletes the day's file.
        reason: Under which reason its rows go to quarantine, empty if the run stops instead.
        error: What the error says, a regular expression, if the run stops.
        num_rows: Rows that go to quarantine.
    """

    title: str
    table: str
    change: Change
    reason: str = ""
    error: str = ""
    num_rows: int = 1


def with_column(table: pa.Table, name: str, values: pa.Array) -> pa.Table:
    """Another column in place of one."""
    return table.set_column(table.column_names.index(name), name, values)


def at_row(name: str, value: object, row: int = 3) -> Change:
    """Another value in one row."""

    def change(table: pa.Table) -> pa.Table:
        values = table[name].to_pylist()
        values[row] = value(table) if callable(value) else value
        return with_column(table, name, pa.array(values, table.schema.field(name).type))

    return change


def cast(name: str, kind: pa.DataType) -> Change:
    """A column in another type."""
    return lambda table: with_column(table, name, pc.cast(table[name], kind))


def filled(name: str, value: object, kind: pa.DataType) -> Change:
    """A column with one value everywhere."""
    return lambda table: with_column(table, name, pa.array([value] * len(table), kind))


def moved(hours: float) -> Callable[[pa.Table], object]:
    """The moment some hours after the day's first row."""

    def value(table: pa.Table) -> object:
        first = pc.min(table["timestamp"].cast(pa.int64())).as_py()
        return pa.scalar(first + int(hours * HOUR), pa.int64()).cast(pa.timestamp("us", tz="UTC")).as_py()

    return value


def _damaged_text(table: pa.Table) -> pa.Table:
    count = len(table)
    offsets = pa.py_buffer(np.arange(count + 1, dtype=np.int32).tobytes())
    damaged = pa.Array.from_buffers(pa.string(), count, [None, offsets, pa.py_buffer(b"\xff" * count)])
    return with_column(table, "source", damaged)


def _crowd(table: pa.Table) -> pa.Table:
    return with_column(table, "user_id", pa.array([7] * 20 + list(range(10, 14))))


CASES = [
    Case("user_id is null", IMPRESSIONS, at_row("user_id", None), "missing_user_id"),
    Case("timestamp is null", IMPRESSIONS, at_row("timestamp", None), "missing_timestamp"),
    Case("impression_id is null", IMPRESSIONS, at_row("impression_id", None), "missing_impression_id"),
    Case("item_id of an impression is null", IMPRESSIONS, at_row("item_id", None), "missing_item_id"),
    Case("action_type is null", ACTIONS, at_row("action_type", None), "missing_action_type"),
    Case("action_type is an empty string", ACTIONS, at_row("action_type", ""), "empty_action_type"),
    Case("action_type is none of the three", ACTIONS, at_row("action_type", "purchase"), "unknown_action_type"),
    Case("source is neither onsite nor offsite", ACTIONS, at_row("source", "instore"), "unknown_source"),
    Case("impression_id occurs twice on a day", IMPRESSIONS, at_row("impression_id", 24), "duplicate_impression_id"),
    Case("action_id occurs twice on a day", ACTIONS, at_row("action_id", 24), "duplicate_action_id"),
    Case("timestamp is not before as_of", IMPRESSIONS, at_row("timestamp", moved(24.5)), "timestamp_in_the_future"),
    Case(
        "timestamp is of another day than the folder",
        IMPRESSIONS,
        at_row("timestamp", moved(-23)),
        "timestamp_of_another_day",
    ),
    Case("dwell_seconds is NaN", ACTIONS, at_row("dwell_seconds", float("nan")), "not_finite_dwell_seconds"),
    Case("value is infinite", ACTIONS, at_row("value", float("inf")), "not_finite_value"),
    Case(
        "value is text that is no number",
        ACTIONS,
        lambda t: at_row("value", "12,50")(cast("value", pa.string())(t)),
        "not_finite_value",
    ),
    Case("value is larger than any float32", ACTIONS, at_row("value", 1e308), "too_large_value"),
    Case("onsite action names no impression", ACTIONS, at_row("impression_id", None), "onsite_without_impression_id"),
    Case("onsite action comes before its impression", ACTIONS, at_row("timestamp", moved(0)), "before_its_impression"),
    Case(
        "onsite action is another user's than its impression",
        ACTIONS,
        at_row("user_id", 99),
        "not_its_impressions_user",
    ),
    Case("one user has more rows than max_user_rows_per_day", IMPRESSIONS, _crowd, "user_over_daily_cap", num_rows=20),
    Case("user_id column is absent", IMPRESSIONS, lambda t: t.drop_columns("user_id"), error="no column 'user_id'"),
    Case(
        "a declared context column is absent", IMPRESSIONS, lambda t: t.drop_columns("brand"), error="no column 'brand'"
    ),
    Case(
        "an attribution entity is absent from the actions",
        ACTIONS,
        lambda t: t.drop_columns("brand"),
        error="no column 'brand'",
    ),
    Case(
        "impression_id is absent, but actions are onsite",
        ACTIONS,
        lambda t: t.drop_columns("impression_id"),
        error="24 actions are onsite, but there is no column",
    ),
    Case(
        "timestamp is text that is no time",
        IMPRESSIONS,
        filled("timestamp", "soon", pa.string()),
        error="column 'timestamp' for 'timestamp' holds times such as 'soon', which is no time of ISO 8601",
    ),
    Case(
        "timestamp is an integer without a unit",
        IMPRESSIONS,
        cast("timestamp", pa.int64()),
        error=r"holds times such as '17\d+', which is a number without a unit; say the unit: .*, unit: us}",
    ),
    Case(
        "identifier is a float that is no whole number",
        IMPRESSIONS,
        filled("item_id", 1.5, pa.float64()),
        error="holds the number 1.5, which is no whole number",
    ),
    Case(
        "identifier is a boolean",
        IMPRESSIONS,
        filled("item_id", True, pa.bool_()),
        error="column 'item_id' for 'item_id' is BOOLEAN, expected an integer or a string",
    ),
    Case(
        "identifier does not fit 64 bits with a sign",
        IMPRESSIONS,
        filled("item_id", 2**64 - 1, pa.uint64()),
        error="18446744073709551615 can't be cast .* column item_id",
    ),
    Case(
        "user_id is an integer in one log and text in the other",
        ACTIONS,
        cast("user_id", pa.string()),
        error="column 'user_id' is int64 in .* and string in actions of 2026-03-02",
    ),
    Case(
        "impression_id is an integer in one log and text in the other",
        ACTIONS,
        cast("impression_id", pa.string()),
        error="column 'impression_id' is int64 in .* and string in actions of 2026-03-02",
    ),
    Case("text is not UTF-8", ACTIONS, _damaged_text, error=r"rows.parquet: not readable .*not valid UTF-?8"),
    Case("a day has no rows", IMPRESSIONS, lambda t: t.slice(0, 0), error="2026-03-02"),
    Case("a day has no file", IMPRESSIONS, lambda t: None, error="deliver the impressions of 2026-03-02"),
]
