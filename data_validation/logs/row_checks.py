"""Row checks of raw logs: types are conformed, bad rows are set aside with a reason."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from components.common.days import MICROSECONDS_PER_DAY, microseconds
from components.common.errors import InputError
from components.features.events import (
    ACTION_TYPES,
    ACTIONS,
    IDENTIFYING,
    IMPRESSIONS,
    SOURCES,
    DatasetConfig,
    arrow_type,
    fits,
)
from components.features.hashing import hash_identifiers
from components.features.log_events import Events
from components.features.named_impressions import NO_ROW, NamedImpressions
from components.features.values import is_number

USER_OVER_CAP = "user_over_daily_cap"
_EXPECTED = {
    "identifier": "an integer or a string",
    "text": "a string",
    "timestamp": "a timestamp (UTC, microseconds)",
    "number": "a number",
    "identifiers": "a list of integers or of strings",
    "numbers": "a list of numbers",
}


@dataclass(frozen=True)
class SortedLog:
    """A log's rows after the checks.

    Attributes:
        clean: Rows in the contract's types.
        rejected: The other rows, with `reason` and the `row` number in their `file`.
        reasons: How many rows were rejected for which reason.
    """

    clean: pa.Table
    rejected: pa.Table
    reasons: dict[str, int]


def conform(table: pa.Table, log_name: str, dataset: DatasetConfig, uri: str) -> pa.Table:
    """Give a delivered table the contract's columns and types; optional columns that are absent become nulls.

    Raises:
        InputError: If a required column is absent or a column has a type that would have to be guessed at.
    """
    arrays = {}
    for column in dataset.columns(log_name):
        if column.name not in table.column_names:
            if column.required or column.delivered:
                raise InputError(
                    f"{uri}: {log_name} have no column {column.name!r} (found {table.column_names}); "
                    "deliver it or map it under source"
                )
            arrays[column.name] = pa.nulls(table.num_rows)
            continue
        kind = table.schema.field(column.name).type
        if not fits(column, kind):
            raise InputError(
                f"{uri}: column {column.name!r} of {log_name} is {kind}, expected {_EXPECTED[column.kind]}; "
                "convert it at the source"
            )
        if pa.types.is_null(kind):
            arrays[column.name] = pa.nulls(table.num_rows)
            continue
        _check_text(table[column.name], column.name, log_name, uri)
        try:
            # Nanoseconds are cut to microseconds; everything else must fit.
            arrays[column.name] = table[column.name].cast(arrow_type(column, kind), safe=column.kind != "timestamp")
        except pa.ArrowInvalid as error:
            raise InputError(
                f"{uri}: column {column.name!r} of {log_name} is {kind} and does not fit "
                f"{arrow_type(column, kind)}: {str(error).splitlines()[0]}; convert it at the source"
            ) from error
    conformed = pa.table(arrays)
    if log_name == ACTIONS and pa.types.is_null(conformed.schema.field("impression_id").type):
        onsite = pc.sum(pc.equal(conformed["source"], "onsite")).as_py() or 0
        if onsite and "impression_id" not in table.column_names:
            raise InputError(
                f"{uri}: {onsite} actions are onsite, but there is no column 'impression_id' "
                f"(found {table.column_names}); deliver it or map it under source"
            )
    return conformed


def _check_text(values: pa.ChunkedArray, column: str, log_name: str, uri: str) -> None:
    try:
        values.validate(full=True)
    except pa.ArrowInvalid as error:
        reason = str(error).splitlines()[0]
        raise InputError(
            f"{uri}: column {column!r} of {log_name} is damaged ({reason}); write it as UTF-8 at the source"
        ) from error


def with_null_columns(table: pa.Table, log_name: str, dataset: DatasetConfig) -> pa.Table:
    """Give columns that hold nothing their type, where the contract has one; empty identifiers stay untyped."""
    for position, column in enumerate(dataset.columns(log_name)):
        if pa.types.is_null(table.schema.field(column.name).type) and column.kind not in IDENTIFYING:
            table = table.set_column(position, column.name, pa.nulls(table.num_rows, arrow_type(column, pa.null())))
    return table


def sort_rows(
    table: pa.Table,
    log_name: str,
    dataset: DatasetConfig,
    day: date,
    as_of: date,
    max_user_rows: int,
    impression_times: pa.Table | None = None,
) -> SortedLog:
    """Separate good rows from bad ones; a row that fails several checks has the first reason.

    Args:
        table: A conformed log of one day, with columns `file` and `row` beside the contract's.
        log_name: Which log.
        dataset: The contract.
        day: The folder's day; rows of other days are rejected.
        as_of: Rows from this day on lie in the future.
        max_user_rows: A user with more good rows than this is no person; all of them are rejected.
        impression_times: For actions: `impression_id`, `timestamp` and `user_id` of the impressions they may name.
    """
    reason = np.full(table.num_rows, "", dtype=object)
    for name, bad in _checks(table, log_name, dataset, day, as_of, impression_times):
        reason[bad & (reason == "")] = name
    # Only good rows can be repeated: a row must not be lost as the double of a bad one.
    identifier = "impression_id" if log_name == IMPRESSIONS else "action_id"
    good = np.flatnonzero(reason == "")
    moment = table["timestamp"].cast(pa.int64()).to_numpy()[good]
    repeated = _repeated(hash_identifiers(table[identifier])[good], moment)
    reason[good[repeated]] = f"duplicate_{identifier}"
    good = np.flatnonzero(reason == "")
    _, user_of, rows_of = np.unique(hash_identifiers(table["user_id"])[good], return_inverse=True, return_counts=True)
    reason[good[rows_of[user_of] > max_user_rows]] = USER_OVER_CAP
    good = reason == ""
    contract = [column.name for column in dataset.columns(log_name)]
    rejected = table.append_column("reason", pa.array(reason, pa.string())).filter(pa.array(~good))
    names, counts = np.unique(reason[~good].astype(str), return_counts=True)
    reasons = dict(zip(names.tolist(), counts.tolist(), strict=True))
    return SortedLog(table.select(contract).filter(pa.array(good)), rejected, reasons)


def _checks(
    table: pa.Table,
    log_name: str,
    dataset: DatasetConfig,
    day: date,
    as_of: date,
    impression_times: pa.Table | None,
) -> Iterator[tuple[str, np.ndarray]]:
    for column in dataset.columns(log_name):
        if column.required:
            yield f"missing_{column.name}", table[column.name].is_null().to_numpy()
            if pa.types.is_string(table.schema.field(column.name).type):
                yield f"empty_{column.name}", pc.fill_null(pc.equal(table[column.name], ""), False).to_numpy()
    for column in dataset.columns(log_name):
        if column.kind == "number":
            numbers = table[column.name].cast(pa.float64())
            finite = pc.fill_null(pc.is_finite(numbers), True).to_numpy()
            yield f"not_finite_{column.name}", ~finite
            yield f"too_large_{column.name}", ~is_number(pc.fill_null(numbers, 0.0).to_numpy())
    yield from _list_checks(table, dataset if log_name == IMPRESSIONS else None)
    moment = pc.fill_null(table["timestamp"].cast(pa.int64()), 0).to_numpy()
    yield "timestamp_in_the_future", moment >= microseconds(as_of)
    start = microseconds(day)
    yield "timestamp_of_another_day", (moment < start) | (moment >= start + MICROSECONDS_PER_DAY)
    if log_name == ACTIONS:
        yield "unknown_action_type", ~_is_in(table["action_type"], ACTION_TYPES)
        yield "unknown_source", ~_is_in(table["source"], SOURCES)
        onsite = pc.equal(table["source"], "onsite")
        yield "onsite_without_impression_id", pc.and_(onsite, table["impression_id"].is_null()).to_numpy()
        if (
            impression_times is not None
            and impression_times.num_rows
            and not pa.types.is_null(table.schema.field("impression_id").type)
        ):
            actions = Events(table, moment, hash_identifiers(table["user_id"]))
            named = NamedImpressions.of(actions, Events.of(impression_times))
            yield "before_its_impression", named.used_by_user & (named.rows == NO_ROW)
            yield "not_its_impressions_user", named.used & ~named.used_by_user


def _list_checks(table: pa.Table, dataset: DatasetConfig | None) -> Iterator[tuple[str, np.ndarray]]:
    for name in dataset.context_lists if dataset else ():
        rows, values = _flat(table[name])
        yield f"gap_in_{name}", _with_any(table, rows[values.is_null().to_numpy(zero_copy_only=False)])
    for name, weights in dataset.context_list_weights.items() if dataset else ():
        sizes = [pc.fill_null(_sizes(table[column]), 0).to_numpy() for column in (name, weights)]
        yield f"not_one_a_value_in_{weights}", sizes[0] != sizes[1]
        rows, values = _flat(table[weights])
        numbers = values.cast(pa.float64()).to_numpy(zero_copy_only=False)
        yield f"no_weight_in_{weights}", _with_any(table, rows[~(is_number(numbers) & (numbers >= 0))])


def _sizes(lists: pa.ChunkedArray) -> pa.ChunkedArray:
    is_empty = pa.types.is_null(lists.type)
    return pa.chunked_array([pa.nulls(len(lists), pa.int32())]) if is_empty else pc.list_value_length(lists)


def _flat(lists: pa.ChunkedArray) -> tuple[np.ndarray, pa.Array]:
    """The values of all lists, and the row of each."""
    rows = np.repeat(np.arange(len(lists)), pc.fill_null(_sizes(lists), 0).to_numpy())
    values = pa.nulls(0) if pa.types.is_null(lists.type) else pc.list_flatten(lists)
    return rows, values.combine_chunks() if isinstance(values, pa.ChunkedArray) else values


def _with_any(table: pa.Table, rows: np.ndarray) -> np.ndarray:
    found = np.zeros(table.num_rows, dtype=bool)
    found[rows] = True
    return found


def _is_in(column: pa.ChunkedArray, values: tuple[str, ...]) -> np.ndarray:
    return pc.is_in(column, value_set=pa.array(values, column.type)).to_numpy()


def _repeated(identity: np.ndarray, moment: np.ndarray) -> np.ndarray:
    """All but the earliest row of each identifier."""
    order = np.lexsort((np.arange(len(identity)), moment, identity))
    repeated = np.zeros(len(identity), dtype=bool)
    repeated[order[1:]] = identity[order[1:]] == identity[order[:-1]]
    return repeated
