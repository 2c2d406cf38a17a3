"""DuckDB's SQL for one column of the contract, from a column as a log has it."""

from __future__ import annotations

from collections.abc import Mapping

from components.common.errors import InputError
from components.sources.config import IGNORE, OTHERS, LogColumn, TimeUnit

MOMENT, LEFT_OUT, FLAG = "moment", "left_out", "flag"
_INTEGERS = frozenset(
    ("TINYINT", "SMALLINT", "INTEGER", "BIGINT", "UTINYINT", "USMALLINT", "UINTEGER", "UBIGINT", "HUGEINT", "UHUGEINT")
)
_FLOATS = frozenset(("FLOAT", "DOUBLE"))
PER_SECOND: dict[TimeUnit, int] = {"s": 1, "ms": 1_000, "us": 1_000_000, "ns": 1_000_000_000}
# From 1980 on and before 2200: what lies outside is no time of a log, but another unit.
_FIRST, _END = 315_532_800_000_000, 7_258_118_400_000_000
# Above it a 64-bit float tells neighbouring integers apart no more.
_LARGEST_WHOLE = 2**53


def quoted(name: str, mark: str = '"') -> str:
    """A name, or with another mark a text, as SQL writes it."""
    return mark + name.replace(mark, 2 * mark) + mark


def is_number(kind: str) -> bool:
    """Whether values of a type are numbers."""
    return kind in _INTEGERS or kind in _FLOATS or kind.startswith("DECIMAL")


def is_yes(raw: str, kind: str) -> str:
    """Whether a value says yes: true, or a number above zero, also as text."""
    if kind == "BOOLEAN":
        return raw
    return f"(lower(({raw})::VARCHAR) IN ('true', 't', 'yes', 'y') OR TRY_CAST({raw} AS DOUBLE) > 0)"


def is_time(kind: str) -> bool:
    """Whether values of a type are moments or days."""
    return kind == "DATE" or kind.startswith("TIMESTAMP")


def moment(chosen: LogColumn, raw: str, kind: str, where: str) -> str:
    """Microseconds since 1970 in UTC; null where there is no readable time between 1980 and 2200.

    Raises:
        InputError: If the unit of numbers is not given, or the type is no time.
    """
    place, option = f"{where}: column {chosen.column or chosen.sql!r} for 'timestamp'", "timestamp: {column: ..., "
    zone = quoted(chosen.zone, "'")
    if chosen.format is not None:
        written = f"try_strptime(({raw})::VARCHAR, {quoted(chosen.format, chr(39))})"
        found = f"epoch_us(timezone({zone}, {written}))"
    elif kind == "VARCHAR" and chosen.unit is None:
        has_zone = f"regexp_matches({raw}, '([zZ]|[+-][0-9]{{2}}:?[0-9]{{0,2}}|UTC)$') AND {raw} LIKE '%:%'"
        found = (
            f"CASE WHEN {has_zone} THEN epoch_us(TRY_CAST({raw} AS TIMESTAMPTZ)) "
            f"ELSE epoch_us(timezone({zone}, TRY_CAST({raw} AS TIMESTAMP))) END"
        )
    elif kind == "VARCHAR" or is_number(kind):
        if chosen.unit is None:
            raise InputError(f"{place} holds numbers ({kind}); say their unit: {option}unit: s}}, or ms, us, ns")
        per_second = PER_SECOND[chosen.unit]
        if kind in _INTEGERS:
            scaled = f"({raw})::HUGEINT * 1000000 // {per_second}"
        else:
            scaled = f"round(TRY_CAST({raw} AS DOUBLE) * {1_000_000 / per_second!r})"
        found = f"CASE WHEN {scaled} BETWEEN {_FIRST} AND {_END} THEN ({scaled})::BIGINT END"
    elif kind == "TIMESTAMP WITH TIME ZONE":
        found = f"epoch_us({raw})"
    elif kind == "TIMESTAMPTZ_NS":
        found = f"epoch_ns({raw}) // 1000"
    elif is_time(kind):
        found = f"epoch_us(timezone({zone}, ({raw})::TIMESTAMP))"
    elif kind in ('"NULL"', "NULL"):
        found = "NULL::BIGINT"
    else:
        raise InputError(f"{place} is {kind}, expected a time; convert it: {option.split(' {')[0]} {{sql: ...}}")
    return f"CASE WHEN {found} BETWEEN {_FIRST} AND {_END} THEN {found} END"


def identifier(chosen: LogColumn, raw: str, kind: str, place: str) -> str:
    """An integer or a string.

    Raises:
        InputError: If the type is neither.
    """
    if chosen.type == "string":
        return f"({raw})::VARCHAR"
    if kind in _FLOATS or kind.startswith("DECIMAL"):
        return f"({_whole_number(raw)})::BIGINT"
    if kind in _INTEGERS or (kind == "VARCHAR" and chosen.type == "integer"):
        return f"({raw})::BIGINT"
    if kind == "VARCHAR" or kind == "UUID" or kind.startswith("ENUM") or is_time(kind) or kind == "JSON":
        return f"({raw})::VARCHAR"
    if kind in ('"NULL"', "NULL"):
        return "NULL"
    raise InputError(f"{place} is {kind}, expected an integer or a string; convert it with {{sql: ...}}")


def _whole_number(raw: str) -> str:
    """A float that holds whole numbers, as pandas keeps integers beside missing values; others are an error."""
    problem = quoted("holds the number ", "'")
    fix = quoted(", which is no whole number that a float holds exactly; ids are integers or strings", "'")
    return (
        f"CASE WHEN ({raw}) IS NULL OR isnan(({raw})::DOUBLE) THEN NULL "
        f"WHEN ({raw}) = trunc({raw}) AND abs({raw}) <= {_LARGEST_WHOLE} THEN ({raw}) "
        f"ELSE error({problem} || ({raw})::VARCHAR || {fix}) END"
    )


def identifiers(chosen: LogColumn, raw: str, kind: str, place: str) -> str:
    """A list of identifiers.

    Raises:
        InputError: If the type is no list, and no separator is given, or values are no identifiers.
    """
    raw, kind = _as_list(chosen, raw, kind, place)
    return f"list_transform({raw}, lambda item: {identifier(chosen, 'item', kind, place)})"


def numbers(chosen: LogColumn, raw: str, kind: str, place: str) -> str:
    """A list of 64-bit floats, likewise; text that is no number becomes NaN.

    Raises:
        InputError: Likewise.
    """
    raw, kind = _as_list(chosen, raw, kind, place)
    return f"list_transform({raw}, lambda item: {number('item', kind, place)})"


def _as_list(chosen: LogColumn, raw: str, kind: str, place: str) -> tuple[str, str]:
    """An expression that is a list, and the type of its values."""
    if kind.endswith("]"):
        return f"({raw})", kind[: kind.rindex("[")]
    if kind in ('"NULL"', "NULL"):
        return "NULL::VARCHAR[]", "VARCHAR"
    if kind == "VARCHAR" and chosen.separator is not None:
        # An empty text is an empty list.
        return f"string_split(nullif({raw}, ''), {quoted(chosen.separator, chr(39))})", "VARCHAR"
    how = "say what stands between its values: separator: '|'" if kind == "VARCHAR" else "convert it with {sql: ...}"
    raise InputError(f"{place} is {kind}, expected a list; {how}")


def number(raw: str, kind: str, place: str) -> str:
    """A 64-bit float; text that is no number becomes NaN, which quarantine takes.

    Raises:
        InputError: If the type is no number.
    """
    if is_number(kind) or kind in ("BOOLEAN", '"NULL"', "NULL"):
        return f"({raw})::DOUBLE"
    if kind in ("VARCHAR", "JSON"):
        return f"CASE WHEN {raw} IS NOT NULL THEN coalesce(TRY_CAST(({raw})::VARCHAR AS DOUBLE), 'nan'::DOUBLE) END"
    raise InputError(f"{place} is {kind}, expected a number; convert it with {{sql: ...}}")


def text(raw: str, kind: str, place: str) -> str:
    """A string.

    Raises:
        InputError: If the type is none that has a short text.
    """
    if kind == "VARCHAR" or kind.startswith("ENUM") or kind in _INTEGERS or kind in ("BOOLEAN", '"NULL"', "NULL"):
        return f"({raw})::VARCHAR"
    raise InputError(f"{place} is {kind}, expected a string; convert it with {{sql: ...}}")


def mapped(raw: str, values: Mapping[str, str]) -> str:
    """A text with its values put in the contract's words."""
    renamed = {old: value for old, value in values.items() if value != IGNORE and old != OTHERS}
    cases = "".join(f" WHEN {quoted(old, chr(39))} THEN {quoted(value, chr(39))}" for old, value in renamed.items())
    others = values.get(OTHERS, IGNORE)
    rest = raw if others == IGNORE else quoted(others, "'")
    return f"CASE {raw}{cases} ELSE {rest} END" if cases else rest


def left_out(raw: str, values: Mapping[str, str], name: str) -> str:
    """Why a row is left out by choice, or null."""
    ignored = [quoted(old, "'") for old, value in values.items() if value == IGNORE and old != OTHERS]
    conditions = [f"{raw} IN ({', '.join(ignored)})"] if ignored else []
    if values.get(OTHERS) == IGNORE:
        kept = [quoted(old, "'") for old, value in values.items() if value != IGNORE]
        conditions.append(f"{raw} NOT IN ({', '.join(kept)})" if kept else f"{raw} IS NOT NULL")
    return f"CASE WHEN {' OR '.join(conditions)} THEN '{name} ' || {raw} END" if conditions else "NULL"


def user_or_own(user: str, user_kind: str, impression: str, impression_kind: str) -> str:
    """A user's id, or one that only the impression has: a text, or where users are integers a negative number."""
    if user_kind == "BIGINT":
        number = impression if impression_kind == "BIGINT" else f"(md5_number_lower({impression}) >> 1)::BIGINT"
        return f"coalesce({user}, -1 - {number})"
    return f"coalesce(nullif({user}, ''), 'impression ' || ({impression})::VARCHAR)"
