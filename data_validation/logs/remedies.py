"""What rows that were set aside have in common, in words: one of them, and the option that deals with such rows."""

from __future__ import annotations

import pyarrow as pa
import pyarrow.compute as pc

from components.common.days import MICROSECONDS_PER_DAY

_NUM_VALUES = 3
_MAPS = {
    "unknown_action_type": ("action_type", "action_types", "checkout"),
    "unknown_source": ("source", "sources", "onsite"),
}

_OF_COLUMN = (
    "missing",
    "empty",
    "not_finite",
    "too_large",
    "duplicate",
    "gap_in",
    "no_weight_in",
    "not_one_a_value_in",
)


def remedy(reason: str, rejected: pa.Table, log_name: str, place: str = "") -> str:
    """What stands in rows of one reason, and what to do about them.

    Args:
        reason: Why the rows were set aside.
        rejected: Some of them, as quarantine holds them.
        log_name: `impressions` or `actions`.
        place: Where the first of them is, if it is not the file and row that it says.
    """
    first = rejected.slice(0, 1).to_pylist()[0]
    place = place or f"row {first['row']} of {first['file']}"
    when = f"{first['timestamp']:%Y-%m-%d %H:%M:%S}" if first["timestamp"] else "no time"
    if reason in _MAPS:
        column, option, example = _MAPS[reason]
        counted = rejected[column].value_counts().to_pylist()
        common = sorted(counted, key=lambda item: -item["counts"])[:_NUM_VALUES]
        shown = ", ".join(f"{item['values']!r} ({item['counts']})" for item in common)
        value = common[0]["values"]
        return (
            f"{column} is {shown}; say what it is: source.{log_name}.{option}: {{{value}: {example}}}, or leave such "
            f"rows out: {{{value}: ignore}}"
        )
    if reason in ("missing_user_id", "empty_user_id"):
        return f"{place} has no user_id; say dataset.users_without_id: drop, or own_user for a user of its own"
    if reason == "timestamp_of_another_day":
        return (
            f"{place} is of {when}; if folders are by another clock than UTC, name it: dataset.timezone: Europe/Berlin"
        )
    if reason == "timestamp_in_the_future":
        return f"{place} is of {when}, after the logs' end; see to its unit and time zone"
    if reason == "before_its_impression":
        midnight = pc.all(pc.equal(_times_of_day(rejected), 0)).as_py()
        hint = (
            "times without a time of day say nothing of order: give the time"
            if midnight
            else ("see to the two logs' clocks, units and time zones")
        )
        return f"{place} is of {when}, before the impression that it names; {hint}"
    if reason == "onsite_without_impression_id":
        return (
            f"{place} names no impression; deliver the id, or say that such actions are offsite: source: {{sql: ...}}"
        )
    if reason == "not_its_impressions_user":
        return f"{place} names an impression of other users than {first['user_id']!r}; see to both logs' user_id"
    for kind in _OF_COLUMN:
        column = reason.removeprefix(f"{kind}_")
        if column != reason:
            return f"{place} has {column} {first.get(column)!r}; correct it at the source"
    return f"such as {place}"


def _times_of_day(rejected: pa.Table) -> pa.Array:
    moments = rejected["timestamp"].cast(pa.int64()).combine_chunks()
    days = pc.divide(moments, MICROSECONDS_PER_DAY)
    return pc.subtract(moments, pc.multiply(days, MICROSECONDS_PER_DAY))
