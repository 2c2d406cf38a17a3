"""A first configuration for a company's logs, from a look at them."""

from __future__ import annotations

import json
import math
import re
import tempfile
from collections.abc import Iterator
from datetime import date, timedelta
from importlib.resources import files
from pathlib import Path
from typing import Any

import jinja2

from cli.log_drafts import NO_DATASET, Draft, fill_in, identifier_of, look_at, meaning_of, split_one_log
from cli.log_facts import look_at_logs
from components.common.errors import InputError
from components.features.events import ACTIONS, CONVERSION_TYPES, IMPRESSIONS, LOG_NAMES
from components.features.objectives import OBJECTIVE_NAMES
from components.sources.config import FilesSource
from components.sources.expressions import quoted
from components.sources.log_days import OwnLog
from components.sources.profile import time_options
from components.sources.relation import Relation, explained
from pipelines.config import RunConfig, load_config

_MAX_ROWS, _MAX_EXACT = 2**24, 2**17
# Ids of which each has a dozen rows or less tell little of the next day.
_FEW_IDS, _SHARE_OF_ROWS = 200, 0.08


def first_config(impressions_uri: str, actions_uri: str, name: str) -> str:
    """The text of a configuration.

    Raises:
        InputError: If files cannot be read, or have no column for a time, a user or an item.
    """
    drafts = {IMPRESSIONS: look_at(impressions_uri, IMPRESSIONS), ACTIONS: look_at(actions_uri, ACTIONS)}
    if impressions_uri == actions_uri:
        split_one_log(drafts)
    fill_in(drafts)
    context, days = _context(drafts), _days(drafts)
    acted = drafts[ACTIONS]
    kinds = {*acted.action_types.values(), *acted.flags.values(), _constant_type(acted)}
    values = {
        "name": re.sub(r"[^a-z0-9_]", "_", name.lower()).strip("_0123456789") or "own",
        "drafts": drafts,
        "conversions": [kind for kind in CONVERSION_TYPES if kind in kinds],
        **context,
        **days,
        **_sizes(drafts, days),
    }
    undecided = {"served": list(OBJECTIVE_NAMES), "min_positives": 100, "min_day_positives": 10}
    return _render({**values, **_judged_by(_parsed(_render({**values, **undecided})))})


def _constant_type(acted: Draft) -> str:
    origin = acted.columns["action_type"]
    return str(origin["constant"]) if isinstance(origin, dict) and "constant" in origin else ""


def _render(values: dict[str, Any]) -> str:
    environment = jinja2.Environment(
        undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True, keep_trailing_newline=True
    )
    environment.filters["yaml"] = _as_yaml
    return environment.from_string(files("cli").joinpath("templates/first_config.yaml.jinja").read_text()).render(
        values
    )


def _parsed(text: str) -> RunConfig:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "first.yaml")
        path.write_text(text)
        return load_config(str(path))


def _judged_by(config: RunConfig) -> dict[str, Any]:
    """Objectives that have positives, conversions before clicks, and how many positives the logs give the gate."""
    assert isinstance(config.source, FilesSource)
    facts = look_at_logs(config, config.source)
    per_day = {name: facts.per_day(name) for name in OBJECTIVE_NAMES}
    families = (
        ("checkout_given_click", "checkout_given_view"),
        ("add_to_cart_given_click", "add_to_cart_given_view"),
        ("click",),
    )
    most = max(per_day.values())
    # An objective that hardly ever happens would keep everything else from being published.
    found = ([name for name in family if per_day[name] > 0.02 * most] for family in families)
    served = next((names for names in found if names), ["click"])
    least = min(per_day[name] for name in served)
    return {
        "served": served,
        "min_positives": int(min(100, max(5, 0.6 * least * config.gate.num_days))),
        "min_day_positives": int(min(10, max(1, 0.4 * least))),
    }


def _as_yaml(value: Any) -> str:
    """A value in one line of YAML; JSON is YAML, and keys need no quotes where they are words."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{_as_yaml(key)}: {_as_yaml(item)}" for key, item in value.items()) + "}"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(map(_as_yaml, value)) + "]"
    is_word = isinstance(value, str) and re.fullmatch(r"[A-Za-z_][\w./-]*", value)
    words = ("yes", "no", "on", "off", "true", "false", "null", "y", "n")
    return str(value) if is_word and value.lower() not in words else json.dumps(value, ensure_ascii=False, default=str)


def _context(drafts: dict[str, Draft]) -> dict[str, Any]:
    """Further identifiers and numbers of impressions, and those that actions share; `named` says of which columns."""
    shown, acted = drafts[IMPRESSIONS], drafts[ACTIONS]
    used = {*shown.matched.values(), *acted.matched.values()} if shown.uri == acted.uri else {*shown.matched.values()}
    identifiers, numbers, lists, unused = [], [], [], []
    named: dict[str, str] = {}
    for name, found in shown.profiles.items():
        is_label = shown.uri == acted.uri and found.is_flag and bool(meaning_of(name))
        if name in used or is_label:
            continue
        alias = re.sub(r"\W+", "_", name).strip("_")
        comes_again = found.distinct < max(_FEW_IDS, _SHARE_OF_ROWS * found.rows)
        if not re.fullmatch(r"[A-Za-z]\w*", alias) or alias in named or found.distinct < 2:
            unused.append(name)
        elif found.is_list and re.fullmatch(r"(VARCHAR|U?(BIG|SMALL|TINY)INT|U?INTEGER)\[\d*\]", found.kind):
            lists.append(alias)
        elif found.is_list:
            unused.append(name)
        elif found.is_decimal:
            numbers.append(alias)
        elif not comes_again or time_options(found) is not None:
            unused.append(name)
        elif found.whole or found.kind in ("VARCHAR", "BOOLEAN") or found.distinct <= 1000:
            identifiers.append(alias)
        else:
            unused.append(name)
        named[alias] = name
    shared = [name for name in identifiers if (other := acted.profiles.get(named[name])) and other.known]
    for alias in (*identifiers, *numbers, *lists):
        name = named[alias]
        both = [draft.profiles[name] for draft in drafts.values() if draft is shown or alias in shared]
        origin = identifier_of(name, both) if alias in identifiers else name
        if shown.profiles[name].kind == "BOOLEAN":
            origin = {"sql": f"{quoted(name)}::INTEGER"}
        for draft in drafts.values():
            if origin != alias and (draft is shown or alias in shared):
                draft.columns[alias] = origin
    return {
        "identifiers": identifiers,
        "numbers": numbers,
        "number_features": [
            {"name": alias, "flag_absent": True} if shown.profiles[named[alias]].has_gaps else alias
            for alias in numbers
        ],
        "lists": lists,
        "shared": shared,
        "unused": unused,
        "named": named,
    }


def _relations(drafts: dict[str, Draft]) -> Iterator[tuple[str, Relation]]:
    logs = {
        name: {"uri": d.uri, "columns": d.columns, "where": d.where or None, "flags": d.flags}
        for name, d in drafts.items()
    }
    source = FilesSource.parse({"kind": "files", **logs}, "source")
    for name in LOG_NAMES:
        log = OwnLog(source, name, NO_DATASET)
        with log.relation(log.all_files()) as relation:
            yield name, relation


def _days(drafts: dict[str, Draft]) -> dict[str, Any]:
    """First and last day, and windows and batch days that the span allows."""
    first, last, rows = date.max, date.max, 0
    for name, relation in _relations(drafts):
        with explained(relation.where):
            low, high, count = relation.connection.execute(
                f"SELECT min(make_timestamptz(m))::DATE, max(make_timestamptz(m))::DATE, count(*) FROM "
                f"(SELECT {relation.moment()} AS m FROM {relation.sql} WHERE {relation.condition})"
            ).fetchall()[0]
        if name == IMPRESSIONS:
            if low is None:
                raise InputError(f"{drafts[name].uri}: no row is an impression; see to the columns' values")
            first, rows = low, count
        last = min(last, high or last)
    span = (last - first).days + 1
    window = next((text for days, text in ((60, 7), (21, 3), (6, 1)) if span >= days), "12h")
    maturity = 1 + (window if isinstance(window, int) else 1)
    spare = span - maturity - 1
    history = max(1, min(28, spare // 4))
    batch = max(1, min(30, math.ceil((spare - history) * 0.6)))
    return {
        "first_day": first,
        "last_day": last,
        "window": window,
        "view_window": min(window, 1) if isinstance(window, int) else window,
        "history": history,
        "histories": sorted({max(1, history // 4), history}),
        "batch_first": first + timedelta(days=history),
        "batch_days": batch,
        "rows_per_day": rows / span,
        "num_rows": rows,
        "days_after": span - maturity - history - batch,
    }


def _sizes(drafts: dict[str, Draft], days: dict[str, Any]) -> dict[str, Any]:
    """Rows of tables and of training batches."""
    shown = drafts[IMPRESSIONS]

    def table(column: str) -> str:
        """Of few ids exact ones, with room for as many again; else four rows an id, as four of five ids have then."""
        distinct = max(shown.profiles[column].distinct, 1)
        if distinct <= _MAX_EXACT:
            return f"exact: {{capacity: {2 ** max(4, math.ceil(math.log2(2 * distinct)))}}}"
        return f"num_rows: {min(_MAX_ROWS, 2 ** math.ceil(math.log2(4 * distinct)))}"

    in_batch = days["rows_per_day"] * days["batch_days"]
    return {
        "table": table,
        "batch_size": min(2000, max(16, 2 ** int(math.log2(max(in_batch / 800, 16))))),
        "is_small": days["num_rows"] < 300_000,
        "gate_days": min(5, max(1, days["days_after"])),
    }
