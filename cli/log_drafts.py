"""What a look at a log's columns makes of them: one log's part of a first configuration."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from datetime import date
from typing import Any

from components.common.errors import InputError
from components.features.events import ACTIONS, IMPRESSIONS, DatasetConfig
from components.sources.config import LogFiles
from components.sources.expressions import FLAG, quoted
from components.sources.log_files import find_files
from components.sources.profile import ColumnProfile, match_columns, profile, time_options
from components.sources.relation import connected, of_files

_WANTED = {
    IMPRESSIONS: ("impression_id", "timestamp", "user_id", "item_id"),
    ACTIONS: (
        *("timestamp", "user_id", "impression_id", "item_id", "action_type", "action_id", "source", "dwell_seconds"),
        "value",
    ),
}
NO_DATASET = DatasetConfig(name="logs", first_day=date(2000, 1, 1), attribution={})
# The first that fits; what takes something back is none of them.
_WORDS = (
    ("ignore", ("remove", "cancel", "refund", "return", "unlike")),
    ("add_to_cart", ("cart", "basket", "bag")),
    ("checkout", ("purchase", "buy", "bought", "order", "checkout", "transaction", "conversion", "install", "book")),
    ("checkout", ("subscri", "sale", "paid", "payment", "signup", "register", "lead")),
    ("click", ("click", "clk", "tap")),
)
_VIEWS = ("impression", "view", "show", "exposure", "display", "imp", "pv", "served", "seen")
_LABELS = {"label": "click", "y": "click", "target": "click"}


@dataclass
class Draft:
    """One log's part of the configuration.

    Attributes:
        uri: Its files.
        profiles: What its columns hold.
        matched: The log's column of each contract column that was found.
        columns: What the YAML says of each contract column, as YAML.
        notes: A comment to some of them.
        where: Which rows are part of the log.
        flags: Which action each column of yes and no stands for.
        action_types: What becomes of each type of action.
        counts: Rows of each of these types.
    """

    uri: str
    profiles: dict[str, ColumnProfile]
    matched: dict[str, str]
    columns: dict[str, Any] = field(default_factory=dict)
    notes: dict[str, str] = field(default_factory=dict)
    where: str = ""
    flags: dict[str, str] = field(default_factory=dict)
    action_types: dict[str, str] = field(default_factory=dict)
    counts: dict[str, int] = field(default_factory=dict)


def look_at(uri: str, log_name: str, where: str = "") -> Draft:
    """Profile the columns of a log, or of the rows that a condition chooses, and match them with the contract's.

    Raises:
        InputError: If there are no files, or they cannot be read.
    """
    found = find_files(uri)
    if found is None:
        raise InputError(
            f"{uri}: no Parquet, CSV or JSON files there; name a file, a folder or a pattern such as *.csv"
        )
    with connected() as connection:
        table = LogFiles(uri=uri, where=where or None)
        profiles = profile(of_files(connection, log_name, NO_DATASET, table, found))
    return Draft(uri, profiles, match_columns(profiles, _WANTED[log_name]), where=where)


def split_one_log(drafts: dict[str, Draft]) -> None:
    """Impressions and actions of the same files: rows of a type, or flags beside each impression."""
    shown, acted = drafts[IMPRESSIONS], drafts[ACTIONS]
    kind = acted.matched.get("action_type")
    values = acted.profiles[kind].values if kind else {}
    views = [value for value in values if any(word == re.sub(r"[^a-z]", "", value.lower()) for word in _VIEWS)]
    views = views or [value for value in values if any(word in value.lower() for word in _VIEWS if len(word) > 3)]
    if kind and views:
        listed = ", ".join(quoted(value, "'") for value in views)
        for log_name, condition in ((IMPRESSIONS, "IN"), (ACTIONS, "NOT IN")):
            drafts[log_name] = look_at(shown.uri, log_name, f"{quoted(kind)} {condition} ({listed})")
        return
    flags = {name: meaning_of(name) for name, found in shown.profiles.items() if found.is_flag and meaning_of(name)}
    if not flags:
        raise InputError(
            f"{shown.uri}: no column says which rows are views, and none whether a click followed; write two queries "
            "with source: {kind: sql}, one for impressions and one for actions"
        )
    acted.flags, acted.columns["action_type"] = flags, FLAG
    acted.matched = dict(shown.matched)


def meaning_of(flag: str) -> str:
    """Which action a column of yes and no stands for, by its name; empty for none."""
    plain = re.sub(r"[^a-z0-9]", "", flag.lower())
    if plain in _LABELS:
        return _LABELS[plain]
    found = _action_of(plain)
    return "" if found == "ignore" else found


def _action_of(text: str) -> str:
    return next((action for action, words in _WORDS if any(word in text.lower() for word in words)), "ignore")


def fill_in(drafts: dict[str, Draft]) -> None:
    """Say where each column of the contract comes from.

    Raises:
        InputError: If there is none for a time, a user or an item.
    """
    shown, acted = drafts[IMPRESSIONS], drafts[ACTIONS]
    for log_name, draft in drafts.items():
        missing = [name for name in ("timestamp", "user_id", "item_id") if name not in draft.matched]
        needed = [name for name in missing if log_name == IMPRESSIONS or name != "item_id"]
        if needed:
            raise InputError(
                f"{draft.uri}: no column looks like {' or '.join(needed)}; it has {list(draft.profiles)}; rename "
                "one, or write the YAML by hand (docs/own_logs.md)"
            )
        time = draft.matched["timestamp"]
        options = dict(time_options(draft.profiles[time]) or {})
        if options.pop("date_only", False):
            draft.notes["timestamp"] = "days without a time of day: give the time if there is one"
        draft.columns["timestamp"] = {"column": time, **options} if options else time
    names_impressions = "impression_id" in acted.matched and "impression_id" in shown.matched
    for name in ("impression_id", "user_id", "item_id"):
        both = [draft.profiles[draft.matched[name]] for draft in drafts.values() if name in draft.matched]
        for draft in drafts.values():
            if name in draft.matched:
                draft.columns[name] = identifier_of(draft.matched[name], both)
    if "impression_id" not in shown.matched:
        shown.columns["impression_id"] = _made_id(shown, ("user_id", "timestamp", "item_id"))
        shown.notes["impression_id"] = "there is none: made of what tells rows apart"
        acted.columns.pop("impression_id", None)
        if acted.flags:
            acted.columns["impression_id"], names_impressions = shown.columns["impression_id"], True
    elif not names_impressions:
        acted.columns.pop("impression_id", None)
    _fill_actions(acted, names_impressions)


def identifier_of(column: str, profiles: list[ColumnProfile]) -> Any:
    """CSV's text as integers where every value of both logs is one."""
    is_text = any(found.kind == "VARCHAR" for found in profiles)
    return {"column": column, "type": "integer"} if is_text and all(found.whole for found in profiles) else column


def _made_id(draft: Draft, parts: tuple[str, ...]) -> dict[str, str]:
    columns = ", ".join(quoted(draft.matched[name]) for name in parts if name in draft.matched)
    return {"sql": f"concat_ws('-', {columns})"}


def _fill_actions(acted: Draft, names_impressions: bool) -> None:
    kind = acted.matched.get("action_type")
    if kind:
        acted.columns["action_type"] = kind
        values = acted.profiles[kind].values
        acted.counts = dict(values)
        acted.action_types = {value: _action_of(value) for value in values}
    elif "action_type" not in acted.columns:
        acted.columns["action_type"] = {"constant": _action_of(acted.uri.rsplit("/", 1)[-1]).replace("ignore", "click")}
        acted.notes["action_type"] = "no column says what was done: click, add_to_cart or checkout?"
    own_id = acted.matched.get("action_id")
    if own_id and own_id != acted.matched.get("impression_id") and not acted.flags:
        acted.columns["action_id"] = own_id
    elif acted.flags:
        parts = [quoted(acted.matched[name]) for name in ("impression_id",) if name in acted.matched]
        parts = parts or [quoted(acted.matched[name]) for name in ("user_id", "timestamp", "item_id")]
        acted.columns["action_id"] = {"sql": f"concat_ws('-', {', '.join([*parts, FLAG])})"}
    else:
        acted.columns["action_id"] = _made_id(acted, ("user_id", "timestamp", "item_id", "action_type"))
        acted.notes["action_id"] = "there is none: made of what tells rows apart"
    source = acted.matched.get("source")
    if source and set(acted.profiles[source].values) <= {"onsite", "offsite"}:
        acted.columns["source"] = source
    elif names_impressions:
        column = acted.matched.get("impression_id")
        known = acted.profiles[column] if column else None
        some = known is not None and known.has_gaps
        acted.columns["source"] = (
            {"sql": f"if({quoted(column or '')} IS NULL, 'offsite', 'onsite')"} if some else {"constant": "onsite"}
        )
        acted.notes["source"] = "onsite: the action names its impression"
    else:
        acted.columns["source"] = {"constant": "offsite"}
        acted.notes["source"] = "no action names an impression: they are matched by user and item"
    if "item_id" not in acted.columns:
        acted.columns["item_id"] = {"sql": "NULL::VARCHAR"}
        acted.notes["item_id"] = "actions have none"
    for name in ("dwell_seconds", "value"):
        if name in acted.matched:
            acted.columns[name] = acted.matched[name]
