"""The log contract: the columns of impressions and actions, and what a data set declares about them."""

from __future__ import annotations

import math
import re
from datetime import date, timedelta
from functools import cache
from typing import Annotated, Any, ClassVar, Literal
from zoneinfo import available_timezones

import pyarrow as pa
from pydantic import AfterValidator, BeforeValidator, Field, model_validator

from components.common.config import Config, Distinct, GrownConfig
from components.common.days import MICROSECONDS_PER_DAY, day_range

IMPRESSIONS = "impressions"
ACTIONS = "actions"
LOG_NAMES = (IMPRESSIONS, ACTIONS)
USER = "user_id"
ACTION_TYPES = ("click", "add_to_cart", "checkout")
CONVERSION_TYPES = ("add_to_cart", "checkout")
SOURCES = ("onsite", "offsite")
TIMESTAMP = pa.timestamp("us", tz="UTC")

# `identifiers` and `numbers` are lists of them.
ColumnKind = Literal["identifier", "text", "timestamp", "number", "identifiers", "numbers"]
IDENTIFYING = ("identifier", "identifiers")
_ARROW_TYPES = {
    "text": pa.string(),
    "timestamp": TIMESTAMP,
    "number": pa.float64(),
    "numbers": pa.list_(pa.float64()),
}


class Column(Config):
    """One column of a log. An identifier is an integer or a string, as the data set has it.

    Attributes:
        name: Its name in the contract.
        kind: What its values are.
        required: Whether a row without a value is rejected.
        delivered: Whether logs without the column are refused, though values may be missing.
    """

    name: str
    kind: ColumnKind
    required: bool = True
    delivered: bool = True


_IMPRESSION_COLUMNS = (
    Column(name="impression_id", kind="identifier"),
    Column(name="timestamp", kind="timestamp"),
    Column(name="user_id", kind="identifier"),
    Column(name="item_id", kind="identifier"),
)
_ACTION_COLUMNS = (
    Column(name="action_id", kind="identifier"),
    Column(name="timestamp", kind="timestamp"),
    Column(name="user_id", kind="identifier"),
    Column(name="action_type", kind="text"),
    Column(name="source", kind="text"),
    Column(name="impression_id", kind="identifier", required=False, delivered=False),
    Column(name="item_id", kind="identifier", required=False),
    Column(name="dwell_seconds", kind="number", required=False, delivered=False),
    Column(name="value", kind="number", required=False, delivered=False),
)

# Columns that quarantine adds to rejected rows.
_RESERVED = {"file", "row", "reason"}

_HOURS = re.compile(r"(\d+) ?h(ours?)?")


def _in_days(value: Any) -> Any:
    hours = _HOURS.fullmatch(value.strip()) if isinstance(value, str) else None
    if hours is None:
        return value
    days, rest = divmod(int(hours[1]), 24)
    return days if not rest else int(hours[1]) / 24


@cache
def _known_zone(name: str) -> str:
    if name not in available_timezones():
        raise ValueError(f"{name!r} is no time zone of the IANA database, such as UTC or Europe/Berlin")
    return name


# Days, or hours such as 36h.
WindowDays = Annotated[int | float, BeforeValidator(_in_days), Field(ge=0, le=90)]
TimeZone = Annotated[str, AfterValidator(_known_zone)]


class AttributionRule(Config):
    """How one type of offsite conversion finds its impression."""

    entity: str = Field(
        description="column that an action and its impression share, e.g. advertiser_id; user_id for any impression of "
        "the user"
    )
    click_through_days: WindowDays = Field(description="window after a click; days, or hours such as 36h")
    view_through_days: WindowDays = Field(description="window after an impression, no longer than after a click")
    at_same_moment: bool = Field(
        True, description="whether an impression or click at the conversion's own moment came before it"
    )

    @model_validator(mode="after")
    def _check_windows(self) -> AttributionRule:
        if self.view_through_days > self.click_through_days:
            raise ValueError(
                f"view_through_days = {self.view_through_days} is longer than click_through_days = "
                f"{self.click_through_days}; a view is the weaker touch, shorten its window"
            )
        return self


class GoodClickRule(Config):
    """A click is good when this number of it is at least this large."""

    column: Literal["dwell_seconds", "value"] = "dwell_seconds"
    at_least: float = Field(30.0, description="seconds, or units of value")


class DatasetConfig(GrownConfig):
    """What a data set's logs hold beyond the fixed columns, and how its conversions are attributed."""

    later: ClassVar[tuple[str, ...]] = ("context_lists", "context_list_weights")

    name: str = Field(pattern=r"^[a-z][a-z0-9_]*$")
    first_day: date = Field(description="first day that logs exist for")
    timezone: TimeZone = Field("UTC", description="by whose clocks days begin, and hours are counted")
    closed_days: tuple[date, ...] = Field(
        (),
        description="days without impressions, e.g. holidays; actions of such days are read if they are there",
    )
    users_without_id: Literal["quarantine", "drop", "own_user"] = Field(
        "quarantine",
        description="rows without a user_id: faulty, left out by choice, or each impression a user of its own",
    )
    context_identifiers: tuple[str, ...] = Field((), description="further identifier columns of impressions")
    context_numbers: tuple[str, ...] = Field((), description="further numeric columns of impressions")
    context_lists: tuple[str, ...] = Field((), description="columns of impressions with a list of identifiers a row")
    context_list_weights: dict[str, str] = Field(
        {}, description="by list of identifiers, the column with a list of numbers, 0 or more, one for each of them"
    )
    action_entities: Annotated[tuple[str, ...], Distinct] = Field(
        (), description="context identifiers that actions carry as well"
    )
    click_days: WindowDays = Field(
        1, gt=0, le=30, description="how long after an impression its click may come; days, or hours such as 12h"
    )
    good_click: GoodClickRule = GoodClickRule()
    attribution: dict[Literal["add_to_cart", "checkout"], AttributionRule] = Field(
        description="by type of conversion; types that do not occur need no rule"
    )

    @model_validator(mode="after")
    def _check_names(self) -> DatasetConfig:
        context = [*self.context_identifiers, *self.context_numbers, *self.context_lists]
        context += self.context_list_weights.values()
        fixed = {column.name for column in _IMPRESSION_COLUMNS + _ACTION_COLUMNS}
        for name in context:
            if name in fixed | _RESERVED or context.count(name) > 1:
                raise ValueError(f"context column {name!r} is declared twice, fixed or reserved; rename it")
        weighted = sorted(set(self.context_list_weights) - set(self.context_lists))
        if weighted:
            raise ValueError(f"context_list_weights: {weighted[0]!r} is not among context_lists; add it there")
        unknown = sorted(set(self.action_entities) - set(self.context_identifiers))
        if unknown:
            raise ValueError(f"action_entities {unknown} are not among context_identifiers; add them there")
        for action_type, rule in self.attribution.items():
            if rule.entity not in (*self.entities, USER):
                raise ValueError(
                    f"attribution.{action_type}.entity {rule.entity!r} is not in both logs, which share "
                    f"{[*self.entities, USER]}; add it to action_entities, if actions have it"
                )
        return self

    @property
    def entities(self) -> tuple[str, ...]:
        """Identifier columns that impressions and actions share."""
        return ("item_id", *self.action_entities)

    @property
    def maturity_days(self) -> int:
        """Days after an impression's day until each of its windows has closed."""
        after_click = max((rule.click_through_days for rule in self.attribution.values()), default=0)
        after_view = max((rule.view_through_days for rule in self.attribution.values()), default=0)
        # An hour of slack would make a day: sums of hours as days are not exact.
        return math.ceil(round(max(self.click_days + after_click, after_view), 6))

    def columns(self, log_name: str) -> tuple[Column, ...]:
        """The columns of one log, in order."""
        if log_name == ACTIONS:
            shared = (Column(name=name, kind="identifier", required=False) for name in self.action_entities)
            return (*_ACTION_COLUMNS, *shared)
        identifiers = (Column(name=name, kind="identifier", required=False) for name in self.context_identifiers)
        numbers = (Column(name=name, kind="number", required=False) for name in self.context_numbers)
        lists = (Column(name=name, kind="identifiers", required=False) for name in self.context_lists)
        weights = (Column(name=name, kind="numbers", required=False) for name in self.context_list_weights.values())
        return (*_IMPRESSION_COLUMNS, *identifiers, *numbers, *lists, *weights)

    @property
    def labelling(self) -> dict[str, Any]:
        """What decides an impression's labels, as plain values."""
        return self.model_dump(
            mode="json", include={"attribution", "click_days", "good_click", "timezone", "users_without_id"}
        )

    def open_days(self, first: date, last: date) -> list[date]:
        """All days from `first` to `last` on which there are events."""
        return [day for day in day_range(first, last) if day not in self.closed_days]

    def open_day(self, day: date, steps: int) -> date:
        """The day some open days after `day`, or before it; a closed `day` counts as the next open one."""
        direction = timedelta(days=1 if steps >= 0 else -1)
        while day in self.closed_days:
            day += direction
        for _ in range(abs(steps)):
            day += direction
            while day in self.closed_days:
                day += direction
        return day

    def days_read(self, first: date, last: date, history_days: int) -> list[date]:
        """The log days that the examples of `first`..`last` depend on, closed ones among them.

        One more day than features and windows reach back to: identifiers that were used on the day before are repeats.
        """
        before = max(history_days, self.maturity_days) + 1
        start = max(self.first_day, first - timedelta(days=before))
        return day_range(start, self.mature_on(last))

    def mature_on(self, day: date) -> date:
        """The last log day that can still change the labels of `day`; they are final once `as_of` is later."""
        return day + timedelta(days=self.maturity_days)


def window_microseconds(days: float) -> int:
    """A window in days as microseconds."""
    return round(days * MICROSECONDS_PER_DAY)


def arrow_type(column: Column, found: pa.DataType) -> pa.DataType:
    """The contract's Arrow type of a column that was found with some type; identifiers keep integer or string."""
    if column.kind not in IDENTIFYING:
        return _ARROW_TYPES[column.kind]
    value = identifier_type(found.value_type if pa.types.is_dictionary(found) else found)
    identifier = pa.int64() if pa.types.is_integer(value) else pa.string()
    return pa.list_(identifier) if column.kind == "identifiers" else identifier


def identifier_type(found: pa.DataType) -> pa.DataType:
    """The type of the identifiers in a column that was found with some type."""
    return found.value_type if _is_list(found) else found


def fits(column: Column, found: pa.DataType) -> bool:
    """Whether values of a found type can be taken as the column's kind without guessing."""
    if column.kind in ("identifiers", "numbers") and not pa.types.is_null(found):
        of_one = Column(
            name=column.name, kind="identifier" if column.kind == "identifiers" else "number", required=False
        )
        return _is_list(found) and fits(of_one, found.value_type)
    value = found.value_type if pa.types.is_dictionary(found) else found
    textual = pa.types.is_string(value) or pa.types.is_large_string(value) or pa.types.is_string_view(value)
    if pa.types.is_null(value):
        return not column.required
    if column.kind == "identifier":
        return pa.types.is_integer(value) or textual
    if column.kind == "text":
        return textual
    if column.kind == "timestamp":
        return pa.types.is_timestamp(value)
    return pa.types.is_integer(value) or pa.types.is_floating(value) or pa.types.is_decimal(value)


def _is_list(found: pa.DataType) -> bool:
    return pa.types.is_list(found) or pa.types.is_large_list(found) or pa.types.is_fixed_size_list(found)
