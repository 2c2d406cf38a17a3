"""The same join in DuckDB, as one who knows it would write it: ASOF joins, all columns in one query, Parquet out.

DuckDB samples by its own hash; every kept row carries the same labels and features as Afterclick's.
"""

from __future__ import annotations

from tests.benchmarks.join_logs import FEATURES, KEEP_RATE

# Events as touches, conversions credited to the last click, else to the last view, then labels by impression.
_LABELS = """
impression as (select * from read_parquet('{logs}/impressions/*/*.parquet', hive_partitioning=false)),
action as (select * from read_parquet('{logs}/actions/*/*.parquet', hive_partitioning=false)),
click as (
  select i.impression_id, i.user_id, i.campaign_id, a.timestamp, a.dwell_seconds
  from action a join impression i on a.impression_id = i.impression_id and a.user_id = i.user_id
  where a.action_type = 'click' and a.timestamp between i.timestamp and i.timestamp + interval 1 day),
conversion as (select * from action where source = 'offsite'),
by_click as (
  select v.action_id, v.action_type, v.user_id, v.campaign_id, v.timestamp, v.value,
    case when v.timestamp - c.timestamp <= interval 7 day then c.impression_id end as clicked_id
  from conversion v asof left join click c
    on v.user_id = c.user_id and v.campaign_id = c.campaign_id and v.timestamp > c.timestamp),
by_view as (
  select v.*, case when v.timestamp - i.timestamp <= interval 1 day then i.impression_id end as viewed_id
  from by_click v asof left join (select impression_id, user_id, campaign_id, timestamp from impression) i
    on v.user_id = i.user_id and v.campaign_id = i.campaign_id and v.timestamp > i.timestamp),
credited as (
  select coalesce(clicked_id, viewed_id) as impression_id, 0 as clicked, 0 as good_clicked,
    (action_type = 'add_to_cart')::int as add_to_carts, (action_type = 'checkout')::int as checkouts,
    case when action_type = 'checkout' then value else 0 end as conversion_value
  from by_view where coalesce(clicked_id, viewed_id) is not null
  union all select impression_id, 1, (dwell_seconds >= 30)::int, 0, 0, 0 from click),
label as (
  select impression_id, max(clicked)::tinyint as clicked, max(good_clicked)::tinyint as good_clicked,
    sum(add_to_carts)::smallint as add_to_carts, sum(checkouts)::smallint as checkouts,
    sum(conversion_value) as conversion_value
  from credited group by impression_id),
kept as (
  select i.*, coalesce(l.clicked, 0)::tinyint as clicked, coalesce(l.good_clicked, 0)::tinyint as good_clicked,
    coalesce(l.add_to_carts, 0)::smallint as add_to_carts, coalesce(l.checkouts, 0)::smallint as checkouts,
    coalesce(l.conversion_value, 0)::double as conversion_value, true as label_mature,
    hash(i.impression_id) % 1000 < {per_mille} as negative_kept
  from impression i left join label l on i.impression_id = l.impression_id
  where l.impression_id is not null or hash(i.impression_id) % 1000 < {per_mille})
"""


def label_query(logs: str, output: str) -> str:
    """Labelled and sampled impressions, one folder a day."""
    return _copy(f"with {_labels(logs)} select *, timestamp::date as event_date from kept", output)


def _labels(logs: str) -> str:
    return _LABELS.format(logs=logs, per_mille=round(KEEP_RATE * 1000))


def _copy(query: str, output: str) -> str:
    return f"copy ({query}) to '{output}' (format parquet, partition_by (event_date), compression zstd)"


def full_query(logs: str, output: str) -> str:
    """Labelled and sampled impressions with the features of `FEATURES`."""
    steps, columns = [_labels(logs)], ["k.*", "(epoch(k.timestamp)::bigint // 3600) % 24 as hour_of_day"]
    joins: list[str] = []
    for entity in FEATURES.counts.entities:
        for kind in FEATURES.counts.action_types:
            _add_counts(entity, kind, steps, columns, joins)
    for entity in FEATURES.engagement.entities:
        _add_engagement(entity, steps, columns, joins)
    # All earlier actions of a user as running lists, cut to the last few at the impression's moment.
    length, horizon = FEATURES.sequence.length, FEATURES.history_days
    steps.append(
        f"""recent as (select user_id, timestamp, list({{'item': item_id, 'kind': action_type, 'at': timestamp}}) over
        (partition by user_id order by timestamp, action_id desc rows between {length - 1} preceding and current row)
        as seen from action)"""
    )
    joins.append("asof left join recent r on k.user_id = r.user_id and k.timestamp > r.timestamp")
    steps.append(
        f"""sequences as (select k.impression_id, list_reverse(list_filter(r.seen, lambda x:
        x.at >= k.timestamp - interval {horizon} day)) as seen from kept k {joins.pop()})"""
    )
    joins.append("left join sequences s on k.impression_id = s.impression_id")
    columns += [
        "list_transform(s.seen, lambda x: x.item) as sequence_item_id",
        "list_transform(s.seen, lambda x: x.kind) as sequence_action_type",
        "list_transform(s.seen, lambda x: log2(1 + epoch(k.timestamp - x.at))::int) as sequence_gap",
    ]
    selected = f"select {', '.join(columns)}, k.timestamp::date as event_date from kept k {' '.join(joins)}"
    return _copy(f"with {', '.join(steps)} {selected}", output)


def _add_counts(entity: str, kind: str, steps: list[str], columns: list[str], joins: list[str]) -> None:
    """Counts in trailing windows as differences of a running count, and the age of the last action."""
    name = f"{kind}_{entity}"
    steps.append(
        f"""{name} as (select user_id, {entity}, timestamp, count(*) over
        (partition by user_id, {entity} order by timestamp) as running
        from action where action_type = '{kind}' and {entity} is not null)"""
    )
    pieces = ["k.impression_id"]
    same = "k.user_id = {0}.user_id and k.{1} = {0}.{1}"
    asof = [f"asof left join {name} n on {same.format('n', entity)} and k.timestamp > n.timestamp"]
    for days in FEATURES.counts.windows_days:
        pieces.append(f"(coalesce(n.running, 0) - coalesce(o{days}.running, 0))::float as within_{days}")
        asof.append(
            f"asof left join {name} o{days} on {same.format(f'o{days}', entity)} "
            f"and k.timestamp - interval {days} day > o{days}.timestamp"
        )
    pieces.append(
        f"least(coalesce(epoch(k.timestamp - n.timestamp) / 86400, 1e9), {FEATURES.history_days})::float as age"
    )
    steps.append(f"{name}_at as (select {', '.join(pieces)} from kept k {' '.join(asof)})")
    joins.append(f"left join {name}_at on k.impression_id = {name}_at.impression_id")
    columns += [f"{name}_at.within_{days} as user_{entity}_{kind}_{days}d" for days in FEATURES.counts.windows_days]
    columns.append(f"{name}_at.age as user_{entity}_{kind}_days_since")


def _add_engagement(entity: str, steps: list[str], columns: list[str], joins: list[str]) -> None:
    """Smoothed rates over the days before, from daily counts."""
    window, smoothing = FEATURES.engagement.window_days, FEATURES.engagement.smoothing
    kinds = ", ".join(
        f"count(*) filter (kind = '{kind}') as {kind}" for kind in ("shown", "click", "add_to_cart", "checkout")
    )
    sums = ", ".join(f"sum({kind}) as {kind}" for kind in ("shown", "click", "add_to_cart", "checkout"))
    steps.append(
        f"""daily_{entity} as (select {entity}, day, {kinds} from (
          select {entity}, timestamp::date as day, 'shown' as kind from impression
          union all select {entity}, timestamp::date, action_type from action)
          where {entity} is not null group by all)"""
    )
    steps.append(f"target_{entity} as (select distinct {entity}, timestamp::date as day from kept)")
    in_window = f"d.day < t.day and d.day >= t.day - interval {window} day"
    steps.append(
        f"""own_{entity} as (select t.{entity}, t.day, {sums} from target_{entity} t join daily_{entity} d
        on t.{entity} = d.{entity} and {in_window} group by all)"""
    )
    steps.append(
        f"""overall_{entity} as (select t.day, {sums} from (select distinct day from target_{entity}) t
        join (select day, {sums} from daily_{entity} group by day) d on {in_window} group by all)"""
    )
    joins.append(
        f"left join own_{entity} e_{entity} on k.{entity} = e_{entity}.{entity} and k.timestamp::date = e_{entity}.day"
    )
    joins.append(f"left join overall_{entity} a_{entity} on k.timestamp::date = a_{entity}.day")
    columns.append(f"coalesce(e_{entity}.shown, 0)::float as {entity}_impressions")
    for kind in ("click", "add_to_cart", "checkout"):
        overall = f"coalesce(a_{entity}.{kind} / greatest(a_{entity}.shown, 1), 0)"
        columns.append(
            f"((coalesce(e_{entity}.{kind}, 0) + {smoothing} * {overall}) "
            f"/ (coalesce(e_{entity}.shown, 0) + {smoothing}))::float as {entity}_{kind}_rate"
        )


def run(logs: str, output: str, full: bool, threads: int) -> None:
    """Run one of the queries."""
    import duckdb

    connection = duckdb.connect()
    connection.execute(f"set threads={threads}; set memory_limit='8GB'; set preserve_insertion_order=false")
    connection.execute("set timezone='UTC'")
    connection.execute((full_query if full else label_query)(logs, output))
