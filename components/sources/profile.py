"""What the columns of a log hold, and which of them look like the contract's."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any

from components.sources.expressions import PER_SECOND, is_number, is_time, quoted
from components.sources.relation import Relation, explained

_MAX_VALUES = 40
_KNOWN_IDS = 0.99
_DECIMALS = frozenset(("FLOAT", "DOUBLE"))
# In the order in which columns are given away, each with names that logs have for it, the best first.
_NAMES: dict[str, tuple[str, ...]] = {
    "timestamp": (
        *("timestamp", "ts", "eventtime", "time", "datetime", "eventtimestamp", "shownat", "doneat", "createdat"),
        *("occurredat", "unixtime", "epoch", "epochms", "timems", "t", "hour", "date"),
    ),
    "user_id": (
        *("userid", "user", "uid", "visitorid", "customerid", "memberid", "accountid", "deviceid", "cookieid", "who"),
        *("clientid", "buyerid", "visitor", "customer", "device", "cookie", "sessionid", "session"),
    ),
    "impression_id": (
        *("impressionid", "impid", "imp", "impression", "exposureid", "displayid", "showid", "viewid", "requestid"),
        *("auctionid", "bidid", "searchid", "srchid"),
    ),
    "item_id": (
        *("itemid", "item", "productid", "product", "sku", "adid", "ad", "articleid", "newsid", "creativeid"),
        *("bannerid", "appid", "app", "hotelid", "propid", "listingid", "offerid", "contentid", "videoid", "goodsid"),
        *("adgroupid", "arm", "actionid"),
    ),
    "action_type": ("actiontype", "eventtype", "behaviortype", "behaviourtype", "action", "event", "behavior", "what"),
    "action_id": ("actionid", "eventid", "act", "conversionid", "clickid", "orderid", "transactionid", "id"),
    "source": ("source", "actionsource", "origin"),
    "dwell_seconds": ("dwellseconds", "dwell", "dwelltime", "timespent", "staytime", "readseconds", "stay"),
    "value": ("value", "revenue", "amount", "ordervalue", "total", "price"),
}
_LAST_RESORTS = {
    "impression_id": ("id", "uuid", "rowid", "eventid"),
    "action_type": ("type",),
    "item_id": ("siteid", "campaignid", "placementid", "pageid", "url", "category"),
}
# Times that are text, tried in this order.
_FORMATS = (
    *("%d/%m/%Y %H:%M:%S", "%d/%m/%Y %H:%M", "%m/%d/%Y %H:%M:%S", "%m/%d/%Y %H:%M", "%d.%m.%Y %H:%M:%S"),
    *("%d.%m.%Y %H:%M", "%Y%m%d%H%M%S", "%Y%m%d %H:%M:%S", "%Y%m%d %H:%M", "%d/%b/%Y:%H:%M:%S", "%y%m%d%H"),
)
# From 2001 to 2100, in seconds.
_EPOCHS = (1.0e9, 4.1e9)


@dataclass(frozen=True)
class ColumnProfile:
    """One column of a log.

    Attributes:
        name: As the log has it.
        kind: DuckDB's type.
        rows: Of the log.
        known: Rows with a value.
        distinct: About how many values there are; of lists, in all of them together.
        values: The most frequent ones with their counts, where there are few.
        example: One of them, as text.
        whole: Whether every value is written as a whole number.
    """

    name: str
    kind: str
    rows: int
    known: int
    distinct: int
    example: str
    whole: bool
    values: dict[str, int] = field(default_factory=dict)

    @property
    def is_list(self) -> bool:
        """Whether each of its values is a list."""
        return self.kind.endswith("]")

    @property
    def plain_name(self) -> str:
        """Its name in small letters and digits."""
        return re.sub(r"[^a-z0-9]", "", self.name.lower())

    @property
    def is_flag(self) -> bool:
        """Whether it says yes or no."""
        return self.kind == "BOOLEAN" or (bool(self.values) and set(self.values) <= {"0", "1", "true", "false"})

    @property
    def has_gaps(self) -> bool:
        """Whether rows are without a value."""
        return self.known < self.rows

    @property
    def is_decimal(self) -> bool:
        """Whether it holds numbers that are no ids."""
        is_float = (self.kind in _DECIMALS or self.kind.startswith("DECIMAL")) and not self.whole
        return is_float or (self.kind == "VARCHAR" and bool(re.fullmatch(r"-?\d+\.\d+(e-?\d+)?", self.example)))


def profile(relation: Relation) -> dict[str, ColumnProfile]:
    """Look at all columns of a log, by name."""
    parts = ["count(*)"]
    for name in relation.types:
        raw = quoted(name)
        text = f"({raw})::VARCHAR"
        parts += [
            f"count({raw})",
            f"approx_count_distinct({raw})",
            f"min({text})",
            f"count(*) FILTER (NOT regexp_full_match({text}, '-?(0|[1-9][0-9]{{0,17}})(\\.0)?'))",
        ]
    with explained(relation.where):
        row = relation.connection.execute(
            f"SELECT {', '.join(parts)} FROM {relation.sql} WHERE {relation.condition}"
        ).fetchall()[0]
    profiles = {}
    for number, (name, kind) in enumerate(relation.types.items()):
        known, distinct, example, not_whole = row[1 + 4 * number : 5 + 4 * number]
        if kind.endswith("]"):
            distinct = _distinct_items(relation, name)
        values = _values(relation, name) if 0 < distinct <= _MAX_VALUES else {}
        profiles[name] = ColumnProfile(name, kind, row[0], known, distinct, str(example), not not_whole, values)
    return profiles


def _distinct_items(relation: Relation, name: str) -> int:
    items = f"SELECT unnest({quoted(name)}) AS item FROM {relation.sql} WHERE {relation.condition}"
    with explained(relation.where):
        found = relation.connection.execute(f"SELECT approx_count_distinct(item) FROM ({items})").fetchall()
    return int(found[0][0])


def _values(relation: Relation, name: str) -> dict[str, int]:
    raw = quoted(name)
    with explained(relation.where):
        rows = relation.connection.execute(
            f"SELECT ({raw})::VARCHAR, count(*) AS n FROM {relation.sql} "
            f"WHERE {relation.condition} AND {raw} IS NOT NULL GROUP BY 1 ORDER BY n DESC, 1"
        ).fetchall()
    return dict(rows)


def match_columns(profiles: dict[str, ColumnProfile], wanted: tuple[str, ...]) -> dict[str, str]:
    """The log's column for each contract column that can be found, by name and content."""
    matched: dict[str, str] = {}

    def give(contract: str, names: tuple[str, ...], whole_name: bool) -> None:
        if contract in matched:
            return
        for known in names:
            for found in profiles.values():
                same = found.plain_name == known if whole_name else len(known) > 3 and known in found.plain_name
                if same and found.name not in matched.values() and _may_be(contract, found):
                    matched[contract] = found.name
                    return

    for whole_name in (True, False):
        for contract, names in _NAMES.items():
            if contract in wanted:
                give(contract, names, whole_name)
    for contract, names in _LAST_RESORTS.items():
        if contract in wanted:
            give(contract, names, True)
    if "timestamp" in wanted and "timestamp" not in matched:
        times = [found.name for found in profiles.values() if time_options(found) is not None]
        matched |= {"timestamp": times[0]} if times else {}
    return matched


def _may_be(contract: str, found: ColumnProfile) -> bool:
    if not found.known or found.is_list:
        return False
    if contract == "timestamp":
        return bool(time_options(found)) or is_time(found.kind)
    if contract in ("impression_id", "action_id"):
        is_whole = contract == "impression_id" or found.known > _KNOWN_IDS * found.rows
        return is_whole and not found.is_decimal and not is_time(found.kind) and found.distinct > 0.5 * found.known
    if contract in ("dwell_seconds", "value"):
        return is_number(found.kind) or (found.kind == "VARCHAR" and (found.whole or found.is_decimal))
    if contract in ("action_type", "source"):
        return bool(found.values)
    return not found.is_decimal and not is_time(found.kind) and not found.is_flag


def time_options(found: ColumnProfile) -> dict[str, Any] | None:
    """How a column's times are to be read, as options beside its name; None if they are no times."""
    if is_time(found.kind):
        return {"date_only": True} if found.kind == "DATE" else {}
    if found.whole or found.is_decimal or is_number(found.kind):
        try:
            size = float(found.example)
        except ValueError:
            return None
        fitting = [unit for unit, factor in PER_SECOND.items() if _EPOCHS[0] <= size / factor < _EPOCHS[1]]
        if fitting:
            return {"unit": fitting[0]}
    if found.kind != "VARCHAR" and not found.whole:
        return None
    if re.match(r"\d{4}-\d\d-\d\d[T ]\d", found.example):
        return {}
    if re.fullmatch(r"\d{4}-\d\d-\d\d", found.example):
        return {"date_only": True}
    return next(({"format": text} for text in _FORMATS if _is_of_format(found.example, text)), None)


def _is_of_format(example: str, text: str) -> bool:
    from datetime import datetime

    try:
        when = datetime.strptime(example, text)
    except ValueError:
        return False
    return 2000 <= when.year < 2100
