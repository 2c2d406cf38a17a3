"""The join's rules written twice more, slowly: one row at a time, and in DuckDB's SQL."""

from __future__ import annotations

import math
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa

from components.features.events import ACTION_TYPES
from components.features.feature_list import ENGAGEMENT_RATES, FeatureConfig
from components.features.hashing import feature_ids, hash_identifiers
from tests.unit.join.logs import DATASET, DAY

Row = dict[str, Any]


def credited_impressions(shown: list[Row], acted: list[Row]) -> list[Any]:
    """The rule of `attribution.attribute`, one action at a time: impression ids, None where there is none."""
    clicks = []

    def named_by(action: Row) -> Row | None:
        names = ("impression_id", "user_id")
        own = [row for row in shown if all(row[name] == action.get(name) for name in names)]
        before = [row for row in own if row["timestamp"] <= action["timestamp"]]
        is_any = action["source"] == "onsite" and bool(before)
        return max(before, key=lambda row: row["timestamp"]) if is_any else None

    result: list[Any] = [None] * len(acted)
    for number, action in enumerate(acted):
        named = named_by(action)
        if action["action_type"] == "click" and named is not None:
            if 0 <= action["timestamp"] - named["timestamp"] <= DATASET.click_days * DAY:
                result[number] = named["impression_id"]
                clicks.append((named, action["timestamp"]))
        elif action["action_type"] == "click" and action["source"] == "offsite" and action.get("item_id") is not None:
            same = [row for row in shown if all(row[name] == action[name] for name in ("user_id", "item_id"))]
            before = [row for row in same if 0 <= action["timestamp"] - row["timestamp"] <= DATASET.click_days * DAY]
            if before:
                seen = max(before, key=lambda row: (row["timestamp"], row["impression_id"]))
                result[number] = seen["impression_id"]
                clicks.append((seen, action["timestamp"]))
    for number, action in enumerate(acted):
        if action["action_type"] == "click":
            continue
        rule, when = DATASET.attribution[action["action_type"]], action["timestamp"]

        at_once = action["source"] == "onsite" or rule.at_same_moment

        def within(touched: int, days: int, when: int = when, at_once: bool = at_once) -> bool:
            return (0 if at_once else 1) <= when - touched <= days * DAY

        if action["source"] == "onsite":
            named = named_by(action)
            if named is not None:
                by_click = [t for row, t in clicks if row is named and within(t, rule.click_through_days)]
                if by_click or within(named["timestamp"], rule.view_through_days):
                    result[number] = named["impression_id"]
            continue
        entity = action.get(rule.entity)
        for touches, days in (
            (clicks, rule.click_through_days),
            ([(row, row["timestamp"]) for row in shown], rule.view_through_days),
        ):
            matching = [
                (t, row["item_id"] == action.get("item_id"), row["impression_id"])
                for row, t in touches
                if entity is not None
                and row[rule.entity] == entity
                and row["user_id"] == action["user_id"]
                and within(t, days)
            ]
            if matching:
                result[number] = max(matching)[2]
                break
    return result


def labels(shown: list[Row], acted: list[Row]) -> dict[Any, dict[str, float]]:
    """Labels by impression id, from `credited_impressions`."""
    names = ("clicked", "good_clicked", "add_to_carts", "checkouts", "conversion_value")
    found = {row["impression_id"]: dict.fromkeys(names, 0.0) for row in shown}
    for action, identifier in zip(acted, credited_impressions(shown, acted), strict=True):
        if identifier is None:
            continue
        label, kind = found[identifier], action["action_type"]
        if kind == "click":
            label["clicked"] = 1
            if (action.get("dwell_seconds") or 0) >= DATASET.good_click.at_least:
                label["good_clicked"] = 1
        elif kind == "add_to_cart":
            label["add_to_carts"] += 1
        else:
            label["checkouts"] += 1
            label["conversion_value"] += action.get("value") or 0
    return found


def features_of(row: Row, shown: list[Row], acted: list[Row], features: FeatureConfig) -> Row:
    """Every feature of one impression, from the events strictly before it."""
    now, horizon = row["timestamp"], features.history_days * DAY
    own = [a for a in acted if a["user_id"] == row["user_id"] and now - horizon <= a["timestamp"] < now]
    found: Row = {}
    for entity in features.counts.entities:
        for kind in features.counts.action_types:
            times = [
                a["timestamp"]
                for a in acted
                if a["user_id"] == row["user_id"]
                and a["action_type"] == kind
                and a.get(entity) is not None
                and a[entity] == row[entity]
                and a["timestamp"] < now
            ]
            for days in features.counts.windows_days:
                found[f"user_{entity}_{kind}_{days}d"] = sum(t >= now - days * DAY for t in times)
            age = min([now - t for t in times] + [horizon])
            found[f"user_{entity}_{kind}_days_since"] = age / DAY
    for kind in features.since_last:
        ages = [now - a["timestamp"] for a in own if kind in ("any", a["action_type"])]
        found[f"user_{kind}_days_since"] = min([*ages, horizon]) / DAY
    for number in features.number_features:
        found[number.name] = row[number.name] or 0.0
        found[f"{number.name}_absent"] = float(row[number.name] is None)
    for entity in features.engagement.entities:
        found |= _engagement(row, shown, acted, entity, features)
    own = [a for a in own if a["action_type"] in features.sequence.action_types]
    # Latest first; at the same moment, the greatest hash of the action's id.
    own.sort(key=lambda a: (a["timestamp"], _hash(a["action_id"])), reverse=True)
    own = own[: features.sequence.length]
    for entity in features.sequence.entities:
        found[f"sequence_{entity}"] = [_identifier(a.get(entity)) for a in own]
    found["sequence_action_type"] = [ACTION_TYPES.index(a["action_type"]) for a in own]
    found["sequence_gap"] = [int(math.log2(1 + (now - a["timestamp"]) / 1e6)) for a in own]
    return found


def _engagement(row: Row, shown: list[Row], acted: list[Row], entity: str, features: FeatureConfig) -> Row:
    today, config = row["timestamp"] // DAY, features.engagement

    def earlier(event: Row) -> bool:
        return today - config.window_days <= event["timestamp"] // DAY < today and event.get(entity) is not None

    def count(events: list[Row], own: bool = False) -> int:
        return sum(earlier(e) and (not own or e[entity] == row[entity]) for e in events)

    volume = count(shown, own=True)
    found: Row = {f"{entity}_impressions": volume}
    for kind in ENGAGEMENT_RATES:
        of_kind = [a for a in acted if a["action_type"] == kind]
        overall = count(of_kind) / max(count(shown), 1)
        rate = (count(of_kind, own=True) + config.smoothing * overall) / (volume + config.smoothing)
        found[f"{entity}_{kind}_rate"] = rate
    return found


def _hash(identifier: int) -> int:
    return int(hash_identifiers(pa.array([identifier], pa.int64()))[0])


def _identifier(value: int | None) -> int:
    return int(feature_ids(hash_identifiers(pa.array([value], pa.int64())))[0])


_SQL = """
with click as (
  select a.action_id, i.impression_id, i.user_id, i.item_id, i.brand, a.timestamp
  from action a join impression i on a.user_id = i.user_id
    and if(a.source = 'onsite', a.impression_id = i.impression_id, a.item_id = i.item_id)
  where a.action_type = 'click' and a.timestamp >= i.timestamp
    and a.timestamp - i.timestamp <= {click_days} * {day}
  qualify row_number() over (partition by a.action_id order by i.timestamp desc, i.impression_id desc) = 1),
touch as (
  select 1 as by_click, impression_id, user_id, item_id, brand, timestamp from click
  union all select 0, impression_id, user_id, item_id, brand, timestamp from impression),
matching as (
  select a.action_id, t.impression_id, row_number() over (partition by a.action_id
    order by t.by_click desc, t.timestamp desc, (t.item_id is not distinct from a.item_id) desc, t.impression_id desc
  ) as place
  from action a join touch t on a.user_id = t.user_id and t.timestamp <= a.timestamp
  where a.action_type <> 'click'
    and (t.timestamp < a.timestamp or a.source = 'onsite' or case a.action_type {at_once} end)
    and case a.action_type {windows} end
    and case when a.source = 'onsite' then a.impression_id = t.impression_id
        else case a.action_type {entities} end end)
select action_id, impression_id from matching where place = 1 union all select action_id, impression_id from click
"""


def credited_by_sql(shown: pa.Table, acted: pa.Table) -> dict[int, Any]:
    """The same rule as one join over all pairs, ranked: action id to impression id."""
    windows = " ".join(
        f"when '{kind}' then a.timestamp - t.timestamp <= "
        f"if(t.by_click = 1, {rule.click_through_days}, {rule.view_through_days}) * {DAY}"
        for kind, rule in DATASET.attribution.items()
    )
    entities = " ".join(
        f"when '{kind}' then a.{rule.entity} = t.{rule.entity}" for kind, rule in DATASET.attribution.items()
    )
    at_once = " ".join(f"when '{kind}' then {rule.at_same_moment}" for kind, rule in DATASET.attribution.items())
    query = _SQL.format(click_days=DATASET.click_days, day=DAY, windows=windows, entities=entities, at_once=at_once)
    with duckdb.connect() as connection:
        for name, table in (("impression", shown), ("action", acted)):
            position = table.schema.get_field_index("timestamp")
            connection.register(name, table.set_column(position, "timestamp", table["timestamp"].cast(pa.int64())))
        rows = connection.execute(query).fetchall()
    return dict(rows)


def close(found: Any, expected: Any) -> bool:
    """Equal lists, or numbers equal to float32's precision."""
    if isinstance(expected, list):
        return bool(found == expected)
    return bool(np.isclose(found, expected, rtol=1e-6, atol=1e-6))
