"""Event dates: UTC days as `datetime.date` in code and ISO text in files."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta

from components.common.errors import InputError
from components.common.storage import join_uri

MICROSECONDS_PER_DAY = 86_400_000_000
_EPOCH = date(1970, 1, 1)


def parse_day(text: str, where: str) -> date:
    """Parse `YYYY-MM-DD`.

    Raises:
        InputError: If `text` is not such a day; `where` names the field.
    """
    try:
        return date.fromisoformat(text)
    except ValueError as error:
        raise InputError(f"{where} = {text!r}: expected a UTC day such as 2017-03-01") from error


def day_range(first: date, last: date) -> list[date]:
    """All days from `first` to `last`, both included; empty when `last` is earlier."""
    return [first + timedelta(days=offset) for offset in range((last - first).days + 1)]


def microseconds(day: date) -> int:
    """Microseconds from the epoch to the start of a UTC day."""
    return number_of(day) * MICROSECONDS_PER_DAY


def number_of(day: date) -> int:
    """Days from the epoch to a UTC day."""
    return (day - _EPOCH).days


def day_of(num_days: int) -> date:
    """The UTC day that is some days after the epoch's."""
    return _EPOCH + timedelta(days=num_days)


def utc_today() -> date:
    """The current UTC day, for scheduled runs that are not told their `as_of`."""
    return datetime.now(UTC).date()


def days_in(folder: str, names_in: Callable[[str], list[str]], prefix: str) -> list[date]:
    """The days that names in a folder have behind a prefix.

    Raises:
        InputError: If such a name has no day.
    """
    days = []
    for name in names_in(folder):
        if name.startswith(prefix):
            try:
                days.append(date.fromisoformat(name.removeprefix(prefix).removesuffix(".json")))
            except ValueError as error:
                raise InputError(f"{join_uri(folder, name)}: names no day; rename it, or delete it") from error
    return days
