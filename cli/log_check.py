"""What a run on a company's own logs would do, in words: what stops it, what would go wrong, and what to change."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date, timedelta
from statistics import median
from typing import Literal

from cli.log_facts import LogFacts, OwnLogFacts
from components.common.days import day_range
from components.features.events import CONVERSION_TYPES, IMPRESSIONS, LOG_NAMES
from components.features.objectives import OBJECTIVE_NAMES
from pipelines.config import RunConfig

Level = Literal["stops", "warning", "fact"]
# Fewer updates than this seldom make a model.
_FEW_STEPS = 300
_THIN_DAY, _SHARED_IDS = 0.3, 0.25


@dataclass(frozen=True)
class Finding:
    """One thing to know.

    Attributes:
        level: Whether it stops a run, should be looked at, or is as it should be.
        text: What is so, and what to change.
    """

    level: Level
    text: str


def findings(config: RunConfig, facts: OwnLogFacts) -> list[Finding]:
    """Everything to know before the first run, in the order in which a run would meet it."""
    return [
        *(finding for name in LOG_NAMES for finding in _of_log(config, name, facts.logs[name])),
        *_repeats(config, facts),
        *_of_actions(config, facts),
        *_of_heads(config, facts),
        *_of_days(config, facts),
        *_of_training(config, facts),
        *_of_tables(config, facts.logs[IMPRESSIONS]),
        *_of_release(config, facts),
    ]


def _of_log(config: RunConfig, name: str, log: LogFacts) -> Iterator[Finding]:
    if not log.rows:
        level: Level = "stops" if name == IMPRESSIONS else "warning"
        yield Finding(level, f"{name}: {log.where} has no row; see to its `where`, action_types and times")
        return
    days, counts = list(log.rows), list(log.rows.values())
    yield Finding(
        "fact",
        f"{name}: {log.total:,} rows on {len(days)} days, {days[0]} to {days[-1]}, about {median(counts):,.0f} a day "
        f"({min(counts):,} to {max(counts):,})",
    )
    if log.not_read:
        yield Finding("warning", f"{name}: not read: {', '.join(log.not_read[:5])}; move them away, or correct the uri")
    for reason, count in log.left_out.most_common(8):
        yield Finding("fact", f"{name}: {count:,} rows left out as configured: {reason}")
    if log.undated:
        level = "stops" if log.undated > config.validation.max_quarantined_share * log.total else "warning"
        yield Finding(level, f"{name}: {log.undated:,} rows have no readable time; correct timestamp's unit or format")
    if log.dates_only:
        yield Finding(
            "warning",
            f"{name}: times have no time of day, so that nothing is known of the order within a day; give the time",
        )
    yield from _gaps(config, name, log)
    for reason, count in log.faulty.most_common():
        share = count / max(log.sampled, 1)
        stops = share > config.validation.max_quarantined_share and reason != "user_over_daily_cap"
        text = f"{name}: {share:.1%} of the rows would be set aside as {reason}: {log.remedies[reason]}"
        yield Finding("stops" if stops else "warning", text)


def _gaps(config: RunConfig, name: str, log: LogFacts) -> Iterator[Finding]:
    first, last = max(min(log.rows), config.dataset.first_day), max(log.rows)
    closed, usual = config.dataset.closed_days, median(log.rows.values())
    missing = [day for day in day_range(first, last) if day not in log.rows and day not in closed]
    if missing:
        read_from = config.dataset.days_read(config.schedule.first_day, last, config.features.history_days)[0]
        level: Level = "stops" if name == IMPRESSIONS and missing[-1] >= read_from else "warning"
        text = f"{name}: none on {_listed(missing)}; deliver them, or list such days in dataset.closed_days"
        yield Finding(level, text)
    # The first and the last day of an export are often cut.
    thin = [day for day, count in log.rows.items() if count < _THIN_DAY * usual and first < day]
    if thin:
        yield Finding("warning", f"{name}: far fewer than usual on {_listed(thin)}; see whether they are complete")
    on_closed = sum(count for day, count in log.rows.items() if day in closed)
    if on_closed:
        yield Finding("fact", f"{name}: {on_closed:,} rows on closed days, which are read")


def _repeats(config: RunConfig, facts: OwnLogFacts) -> Iterator[Finding]:
    share = facts.repeats / max(facts.impressions.total(), 1)
    if share > config.join.max_duplicate_share:
        yield Finding(
            "stops",
            f"impressions: {share:.1%} have an impression_id that their user had on the day before, too; make ids that "
            "do not come again, in both logs alike: impression_id: {sql: \"concat_ws('-', day, id)\"}",
        )


def _of_actions(config: RunConfig, facts: OwnLogFacts) -> Iterator[Finding]:
    for kind, count in facts.actions.most_common():
        reasons: Counter[str] = facts.unattributed.get(kind, Counter())
        credited = 1 - sum(reasons.values()) / count
        why = ", ".join(f"{number / count:.0%} {reason.replace('_', ' ')}" for reason, number in reasons.items())
        text = f"{kind}: {credited:.1%} are credited to an impression" + (f"; {why}" if why else "")
        if reasons.get("no_rule"):
            text += f"; dataset.attribution has no rule for {kind}"
        elif credited < 0.01:
            text += "; see whether both logs have the same users, ids and clocks, and to the windows of dataset"
        yield Finding("warning" if credited < 0.01 else "fact", text)
    for kind in CONVERSION_TYPES:
        if kind in config.dataset.attribution and not facts.actions[kind]:
            yield Finding("fact", f"{kind}: there is none; its rule in dataset.attribution may go")


def _of_heads(config: RunConfig, facts: OwnLogFacts) -> Iterator[Finding]:
    per_day = {name: facts.per_day(name) for name in OBJECTIVE_NAMES}
    shown = ", ".join(f"{name} {count:,.1f}" for name, count in per_day.items() if count)
    yield Finding("fact", f"positives a day: {shown or 'none'}")
    empty = [name for name in OBJECTIVE_NAMES if not per_day[name]]
    if empty:
        yield Finding("fact", f"heads without any positive are left out: {', '.join(empty)}")
    for name in config.served:
        if name in empty:
            others = [other for other in OBJECTIVE_NAMES if other not in empty]
            yield Finding("stops", f"{name} is served, but has no positive; serve what happens: served: {others}")


def _of_days(config: RunConfig, facts: OwnLogFacts) -> Iterator[Finding]:
    dataset, schedule = config.dataset, config.schedule
    ends = [max(log.rows) for log in facts.logs.values() if log.rows]
    if not ends:
        return
    end = min(ends)
    last = dataset.open_day(schedule.first_day, schedule.num_batch_days - 1)
    scored = dataset.open_day(last, 1)
    final = dataset.mature_on(scored)
    needs = (
        f"the batch is {schedule.first_day} to {last}, scored on {scored}, whose labels are final after {final} "
        f"({dataset.maturity_days} days for windows)"
    )
    if final > end:
        yield Finding(
            "stops",
            f"{needs}; logs end on {end}: {(final - end).days} more days are needed. Wait for them, or make "
            "schedule.first_day earlier, num_batch_days smaller or windows shorter",
        )
        return
    daily = len(dataset.open_days(scored, end - timedelta(days=dataset.maturity_days)))
    yield Finding("fact", f"{needs}; {daily} days can be scored so far, a trial takes {config.gate.trial_days}")
    history = (schedule.first_day - dataset.first_day).days
    if history < config.features.history_days:
        yield Finding(
            "warning",
            f"features look back {config.features.history_days} days, and there are {history} before the batch; begin "
            "it later, or shorten counts.windows_days and engagement.window_days",
        )


def _of_training(config: RunConfig, facts: OwnLogFacts) -> Iterator[Finding]:
    impressions = facts.impressions.total() / facts.share / max(len(facts.impressions), 1)
    click_rate = facts.per_day("click") / max(impressions, 1e-9)
    kept = impressions * (click_rate + (1 - click_rate) * config.join.negative_keep_rate)
    for name, recipe in config.arms.items():
        daily = math.ceil(kept / recipe.batch_size)
        batch = math.ceil(kept * config.schedule.num_batch_days / recipe.batch_size) * recipe.epochs
        text = f"{name}: about {batch:,} training steps in the batch, {daily:,} a day after it"
        if batch >= _FEW_STEPS:
            yield Finding("fact", text)
            continue
        wanted = max(16, 2 ** int(math.log2(max(kept * config.schedule.num_batch_days * recipe.epochs / 1000, 16))))
        smaller = f": train.batch_size: {wanted}" if wanted < recipe.batch_size else ", more days or more epochs"
        yield Finding("warning", f"{text}, which are few; take smaller batches{smaller}")


def _of_tables(config: RunConfig, log: LogFacts) -> Iterator[Finding]:
    sizes = {feature.name: feature.num_rows for feature in config.features.categorical}
    for name, count in log.distinct.items():
        exact = config.features.exact_ids.get(name)
        if exact is not None and count > exact.capacity:
            yield Finding(
                "warning",
                f"{name}: about {count:,} ids for exact.capacity = {exact.capacity:,}: the rarest share "
                f"{exact.oov_rows:,} rows; raise it if they matter",
            )
        rows = sizes.get(name)
        if not rows or count < 2:
            continue
        sharing = 1 - (1 - 1 / rows) ** (count - 1)
        if sharing > _SHARED_IDS:
            better = 2 ** math.ceil(math.log2(4 * count))
            left = 1 - (1 - 1 / better) ** (count - 1)
            yield Finding(
                "warning",
                f"{name}: {sharing:.0%} of about {count:,} ids share a row of {rows:,} with others; exact: "
                f"{{capacity: {better // 2}}} gives each its own, num_rows: {better} leaves {left:.0%}",
            )


def _of_release(config: RunConfig, facts: OwnLogFacts) -> Iterator[Finding]:
    gate = config.gate
    single = [name for name, recipe in config.arms.items() if recipe.replicas == 1]
    if gate.evidence == "confident" and gate.start_sd_percent is None and len(single) > 1:
        yield Finding(
            "warning",
            f"no trial will end in a blessing: {', '.join(single)} have one random start each, so nothing tells how "
            "far chance alone moves their AUC; set train.replicas: 2 or more, or gate.start_sd_percent if it has been "
            "measured, or gate.evidence: point",
        )
    for name in config.served:
        per_day = facts.per_day(name)
        window = per_day * gate.num_days
        if not per_day:
            continue
        if window < gate.min_positives:
            yield Finding(
                "warning",
                f"nothing will be published: {name} has about {window:,.0f} positives in {gate.num_days} days, and "
                f"gate.min_positives = {gate.min_positives} are needed; judge longer (gate.num_days: "
                f"{math.ceil(gate.min_positives / per_day)}), or by less ({max(1, int(window * 0.7))})",
            )
        elif per_day < gate.min_day_positives:
            yield Finding(
                "warning",
                f"versions will seldom be refreshed: {name} has about {per_day:,.1f} positives a day, and "
                f"gate.min_day_positives = {gate.min_day_positives}; lower it",
            )


def _listed(days: list[date]) -> str:
    shown = ", ".join(map(str, days[:4]))
    return f"{shown} and {len(days) - 4} more days" if len(days) > 4 else shown
