"""What a run would find in a company's logs: counts by day, and on a sample of users what is made of them."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from datetime import date, timedelta
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from components.common.days import MICROSECONDS_PER_DAY, day_of
from components.features.events import ACTIONS, IMPRESSIONS, LOG_NAMES, TIMESTAMP, USER, DatasetConfig
from components.features.log_events import Events
from components.features.objectives import OBJECTIVES
from components.features.wall_clock import to_wall_clock
from components.join.attribution import Attribution, label
from components.sources.config import OwnLogs
from components.sources.expressions import LEFT_OUT, MOMENT, quoted
from components.sources.log_days import OwnLog
from components.sources.relation import Relation, explained
from data_validation.config import ValidationConfig
from data_validation.logs.remedies import remedy
from data_validation.logs.row_checks import conform, sort_rows, with_null_columns
from pipelines.config import RunConfig

_SAMPLE_ROWS = 300_000


@dataclass
class LogFacts:
    """One log.

    Attributes:
        where: What the user knows it by.
        rows: By day; rows that are left out by choice are not counted.
        left_out: Rows by reason.
        undated: Rows without a readable time.
        dates_only: Whether no time has a time of day.
        not_read: Files beside it.
        distinct: About how many values an identifier has, or a crossed one.
        sampled: Rows of the sample.
        faulty: Rows of the sample by reason.
        remedies: What helps, by reason.
    """

    where: str
    rows: dict[date, int]
    left_out: Counter[str]
    undated: int
    dates_only: bool
    not_read: tuple[str, ...]
    distinct: dict[str, int]
    sampled: int = 0
    faulty: Counter[str] = field(default_factory=Counter)
    remedies: dict[str, str] = field(default_factory=dict)

    @property
    def total(self) -> int:
        """Rows of all days."""
        return sum(self.rows.values())


@dataclass
class OwnLogFacts:
    """Both logs.

    Attributes:
        logs: By name.
        share: Of the users that the sample holds.
        impressions: Of the sample, those that are clean, by day.
        positives: By objective and day, of the sample.
        actions: Clean actions of the sample by type.
        unattributed: Of these by type and reason.
        repeats: Impressions of the sample whose user had the id on the day before.
    """

    logs: dict[str, LogFacts]
    share: float = 1.0
    impressions: Counter[date] = field(default_factory=Counter)
    positives: dict[str, Counter[date]] = field(default_factory=dict)
    actions: Counter[str] = field(default_factory=Counter)
    unattributed: dict[str, Counter[str]] = field(default_factory=dict)
    repeats: int = 0

    def per_day(self, objective: str) -> float:
        """Positives of an objective on a day, of all users."""
        return self.positives[objective].total() / self.share / max(len(self.impressions), 1)


def look_at_logs(config: RunConfig, source: OwnLogs) -> OwnLogFacts:
    """Read all times and ids of both logs, and the rows of a sample of users; of folders by day those that runs read.

    Raises:
        InputError: If a log cannot be read as the configuration says.
    """
    facts, samples, dataset = OwnLogFacts({}), {}, config.dataset
    first = config.schedule.first_day
    since = dataset.days_read(first, first, config.features.history_days)[0]
    for name in LOG_NAMES:
        log = OwnLog(source, name, dataset)
        with log.relation(log.all_files(since)) as relation:
            facts.logs[name] = _log_facts(relation, log, config)
            if name == IMPRESSIONS:
                facts.share = min(1.0, _SAMPLE_ROWS / max(facts.logs[name].total, 1))
            samples[name] = _sample(relation, facts.share)
    last = max((max(log.rows) for log in facts.logs.values() if log.rows), default=dataset.first_day)
    clean: dict[str, pa.Table] = {}
    for name in LOG_NAMES:
        shown = clean[IMPRESSIONS].select(["impression_id", "timestamp", USER]) if name == ACTIONS else None
        clean[name] = _clean(samples[name], name, dataset, facts.logs[name], last, shown)
    _attribute(facts, Events.of(clean[IMPRESSIONS]), Events.of(clean[ACTIONS]), dataset)
    return facts


def _log_facts(relation: Relation, log: OwnLog, config: RunConfig) -> LogFacts:
    dataset = config.dataset
    projection = f"(SELECT {relation.projection()} FROM {relation.sql} WHERE {relation.condition})"
    day = f"(timezone({quoted(dataset.timezone, chr(39))}, make_timestamptz({MOMENT})))::DATE"
    ids = _counted(config) if relation.log_name == IMPRESSIONS else {}
    ask = relation.connection.execute
    with explained(relation.where):
        by_day = ask(
            f"SELECT {day}, count(*) FILTER ({LEFT_OUT} IS NULL), count(*) FILTER ({MOMENT} % 86400000000 <> 0) "
            f"FROM {projection} GROUP BY 1"
        ).fetchall()
        left_out = ask(
            f"SELECT {LEFT_OUT}, count(*) FROM {projection} WHERE {LEFT_OUT} IS NOT NULL GROUP BY 1"
        ).fetchall()
        counts = (f"approx_count_distinct({expression})" for expression in ids.values())
        distinct = ask(f"SELECT {', '.join(['count(*)', *counts])} FROM {projection}").fetchall()[0]
    rows = {when: count for when, count, _ in by_day if when is not None and count}
    undated = sum(count for when, count, _ in by_day if when is None)
    dates_only = bool(rows) and not sum(count for *_, count in by_day)
    files = log.left_over()
    return LogFacts(
        relation.where,
        dict(sorted(rows.items())),
        Counter(dict(left_out)),
        undated,
        dates_only,
        files,
        dict(zip(ids, distinct[1:], strict=True)),
    )


def _counted(config: RunConfig) -> dict[str, str]:
    """Features whose ids are counted, alone or crossed, and each one's expression over the impressions' columns."""
    known = {column.name for column in config.dataset.columns(IMPRESSIONS) if column.kind == "identifier"}
    counted = {}
    for feature in config.features.categorical:
        columns = [quoted(name) for name in feature.identifiers if name in known]
        # What the clock says is in no column.
        if feature.binary_code is None and columns and len(columns) == len(feature.identifiers):
            counted[feature.name] = columns[0] if len(columns) == 1 else f"hash({', '.join(columns)})"
    return counted


def _sample(relation: Relation, share: float) -> pa.Table:
    """The rows of some users, with the day since 1970 that each is of."""
    # Rows without a user are sampled by their own ids.
    ids = [name for name in (USER, "impression_id", "action_id") if relation.has(name)]
    user = f"coalesce({', '.join(f'{quoted(name)}::VARCHAR' for name in ids)}, '')"
    chosen = f"hash({user}) % 1000000 < {int(share * 1_000_000)}" if share < 1 else "true"
    sql = (
        f"SELECT * FROM (SELECT {relation.projection()} FROM {relation.sql} WHERE {relation.condition}) "
        f"WHERE {LEFT_OUT} IS NULL AND {MOMENT} IS NOT NULL AND {chosen} ORDER BY {MOMENT}"
    )
    with explained(relation.where):
        table = relation.connection.sql(sql).to_arrow_table()
    wall = to_wall_clock(table[MOMENT].to_numpy(), relation.dataset.timezone)
    return table.drop_columns([MOMENT, LEFT_OUT]).append_column("timestamp", pa.array(wall).cast(TIMESTAMP))


def _clean(
    sample: pa.Table, log_name: str, dataset: DatasetConfig, facts: LogFacts, last: date, shown: pa.Table | None
) -> pa.Table:
    """The rows that pass the checks of logs; what does not is counted in `facts`."""
    table = with_null_columns(conform(sample, log_name, dataset, facts.where), log_name, dataset)
    numbered = table.append_column("file", pa.array([facts.where] * table.num_rows, pa.string()))
    numbered = numbered.append_column("row", pa.array(np.arange(table.num_rows)))
    ordinals = table["timestamp"].cast(pa.int64()).to_numpy() // MICROSECONDS_PER_DAY
    facts.sampled, parts = table.num_rows, [table.slice(0, 0)]
    for ordinal in np.unique(ordinals):
        of_day = numbered.filter(pa.array(ordinals == ordinal))
        limit = ValidationConfig().max_user_rows_per_day
        rows = sort_rows(of_day, log_name, dataset, day_of(int(ordinal)), last + timedelta(days=1), limit, shown)
        facts.faulty.update(rows.reasons)
        for reason in rows.reasons.keys() - facts.remedies.keys():
            of_reason = rows.rejected.filter(pc.equal(rows.rejected["reason"], reason))
            facts.remedies[reason] = remedy(reason, of_reason, log_name, f"a row of {facts.where}")
        parts.append(rows.clean)
    return pa.concat_tables(parts, promote_options="permissive").combine_chunks()


def _attribute(facts: OwnLogFacts, impressions: Events, actions: Events, dataset: DatasetConfig) -> None:
    attribution = Attribution(impressions, actions, dataset)
    credited = attribution.credited
    labels = label(len(impressions), actions, credited, dataset)
    ordinals = impressions.times // MICROSECONDS_PER_DAY

    def by_day(chosen: np.ndarray) -> Counter[date]:
        days, counts = np.unique(ordinals[chosen], return_counts=True)
        return Counter({day_of(int(day)): int(count) for day, count in zip(days, counts, strict=True)})

    facts.impressions = by_day(np.ones(len(impressions), dtype=bool))
    clicked = labels.clicked > 0
    taking_part: dict[str, Any] = {"all": np.ones_like(clicked), "clicked": clicked, "not_clicked": ~clicked}
    for objective in OBJECTIVES:
        positive = (getattr(labels, objective.label) > 0) & taking_part[objective.rows]
        facts.positives[objective.name] = by_day(positive)
    kinds = pc.fill_null(actions.table["action_type"], "").to_numpy(zero_copy_only=False)
    facts.actions = Counter(kinds.tolist())
    for reason, chosen in attribution.why_unattributed().items():
        for kind, count in Counter(kinds[chosen].tolist()).items():
            facts.unattributed.setdefault(kind, Counter())[reason] = count
    in_order = np.lexsort((impressions.times, impressions.hashed("impression_id"), impressions.users))
    same = [
        values[in_order[1:]] == values[in_order[:-1]]
        for values in (impressions.users, impressions.hashed("impression_id"))
    ]
    near = np.diff(ordinals[in_order]) == 1
    facts.repeats = int((same[0] & same[1] & near).sum())
