"""The gate: is the candidate's recipe better than the control's on unseen days?"""

from __future__ import annotations

import math
from dataclasses import dataclass
from datetime import date

import numpy as np

from components.common.ledger import CANDIDATE, CONTROL, LedgerRow, ObjectiveScore
from components.common.releases import Gain
from components.gate.config import GateConfig


@dataclass(frozen=True)
class Verdict:
    """Whether the candidate is blessed, and from what.

    Attributes:
        blessed: The verdict.
        reasons: Why, or everything that stands against it.
        days: The days of the window.
        gain: Over all served objectives; None when it cannot be computed.
        by_objective: The gain of each served objective.
    """

    blessed: bool
    reasons: tuple[str, ...]
    days: tuple[date, ...]
    gain: Gain | None
    by_objective: dict[str, Gain]


def decide(rows: list[LedgerRow], event_date: date, config: GateConfig) -> Verdict:
    """Bless the candidate if its cumulative AUC gain reaches the threshold.

    gain = (sum_d AUC_candidate[d] / sum_d AUC_control[d] - 1) * 100, over the last `num_days` days up to `event_date`
    on which both arms were scored, and over the served objectives (Qiu et al. 2025, section 4.4). Anything that is
    missing counts against the candidate.

    Raises:
        ValueError: If the two arms were scored on different rows on any of those days.
    """
    control, candidate = _window(rows, event_date, config.num_days)
    days = tuple(row.event_date for row in control)
    for ours, theirs in zip(control, candidate, strict=True):
        if ours.examples_digest != theirs.examples_digest:
            raise ValueError(
                f"ledger of {ours.event_date}: control was scored on examples {ours.examples_digest[:12]}, "
                f"candidate on {theirs.examples_digest[:12]}; the arms must see the same rows"
            )
    against = _shortcomings(control, candidate, event_date, config)
    if not days or any(auc is None for row in control + candidate for auc in _aucs(row, config.served)):
        return Verdict(False, tuple(against or ["no day has an AUC of every served objective"]), days, None, {})
    gain = cumulative_gain(control, candidate, config.served)
    by_objective = {name: cumulative_gain(control, candidate, (name,)) for name in config.served}
    if not gain.percent >= config.min_gain_percent:
        against.append(
            f"cumulative AUC gain {gain.percent:+.3f}% is below the threshold {config.min_gain_percent:+.2f}%"
        )
    for name, own in by_objective.items():
        if not own.percent >= -config.max_objective_loss_percent:
            against.append(f"{name} loses {-own.percent:.3f}%, more than {config.max_objective_loss_percent}%")
    against += calibration_problems(candidate, config)
    if against:
        return Verdict(False, tuple(against), days, gain, by_objective)
    reason = f"cumulative AUC gain {gain.percent:+.3f}% over {len(days)} days reaches {config.min_gain_percent:+.2f}%"
    return Verdict(True, (reason,), days, gain, by_objective)


def cumulative_gain(control: list[LedgerRow], candidate: list[LedgerRow], objectives: tuple[str, ...]) -> Gain:
    """The gain of `decide` in percent, with the 95% interval of its bootstrap replicates where the rows have them."""
    replicates = []
    for rows in (candidate, control):
        drawn = [row.scores[name].auc_replicates for row in rows for name in objectives]
        replicates.append(np.sum(drawn, axis=0) if all(drawn) and len({len(d) for d in drawn}) == 1 else None)
    ours, theirs = (sum(auc or 0.0 for row in rows for auc in _aucs(row, objectives)) for rows in (candidate, control))
    low = high = None
    if replicates[0] is not None and replicates[1] is not None:
        low, high = (float(x) for x in np.percentile((replicates[0] / replicates[1] - 1) * 100, [2.5, 97.5]))
    return Gain(percent=(ours / theirs - 1) * 100, low=low, high=high)


def calibration_problems(rows: list[LedgerRow], config: GateConfig) -> list[str]:
    """Served objectives whose calibration, pooled over the rows' days, is missing or out of bounds.

    A model that is off by just the bound predicts `expected` positives where expected / bound come, with a Poisson
    error of its root. The calibration counts as out of bounds when the positives that came are further away than
    `calibration_sigmas` of these errors: the noise is that of counts that were to be expected, since the counts that
    came are few exactly where a model predicts far too much.
    """
    problems = []
    for name in config.served:
        scores = [row.scores[name] for row in rows if name in row.scores]
        positives, expected = sum(score.positives for score in scores), _expected_positives(scores)
        if not positives or expected is None:
            reason = "no positive row" if not positives else "predictions are no numbers"
            problems.append(f"{name} has no calibration: {reason}")
            continue
        too_high, too_low = expected / config.max_calibration, expected / config.min_calibration
        fewest = too_high - config.calibration_sigmas * math.sqrt(too_high)
        most = too_low + config.calibration_sigmas * math.sqrt(too_low)
        if not fewest <= positives <= most:
            problems.append(
                f"calibration of {name} is {expected / positives:.3f} ({positives} positives, {expected:.1f} "
                f"expected), outside {config.min_calibration} to {config.max_calibration}"
            )
    return problems


def _expected_positives(scores: list[ObjectiveScore]) -> float | None:
    """Sum of the predictions; None if some are no numbers."""
    means = [(score.mean_prediction, score.rows) for score in scores]
    known = [mean * rows for mean, rows in means if mean is not None and math.isfinite(mean)]
    return sum(known) if len(known) == len(scores) else None


def _window(rows: list[LedgerRow], event_date: date, num_days: int) -> tuple[list[LedgerRow], list[LedgerRow]]:
    """The newest days that both arms were scored on, by the recipes that they have now."""
    control, candidate = (
        {row.event_date: row for row in scored_window(rows, arm, event_date)} for arm in (CONTROL, CANDIDATE)
    )
    days = sorted(control.keys() & candidate.keys())[-num_days:]
    return [control[day] for day in days], [candidate[day] for day in days]


def scored_window(rows: list[LedgerRow], arm: str, event_date: date, num_days: int = 0) -> list[LedgerRow]:
    """An arm's rows of the newest days up to one, all if no number is given, by the recipe that it has now."""
    by_day = {row.event_date: row for row in rows if row.arm == arm and row.event_date <= event_date}
    newest = by_day[max(by_day)].recipe_digest if by_day else ""
    return [by_day[day] for day in sorted(by_day) if by_day[day].recipe_digest == newest][-num_days:]


def _aucs(row: LedgerRow, objectives: tuple[str, ...]) -> list[float | None]:
    return [row.scores[name].auc if name in row.scores else None for name in objectives]


def _shortcomings(
    control: list[LedgerRow], candidate: list[LedgerRow], event_date: date, config: GateConfig
) -> list[str]:
    shortcomings = []
    if len(control) < config.num_days:
        shortcomings.append(f"{len(control)} of {config.num_days} days are scored by both arms")
    if not control or control[-1].event_date != event_date:
        shortcomings.append(f"{event_date} is not scored by both arms")
    for ours, theirs in zip(control, candidate, strict=True):
        if not ours.trained_through == theirs.trained_through < ours.event_date:
            shortcomings.append(
                f"on {ours.event_date} the control had seen days through {ours.trained_through}, the candidate through "
                f"{theirs.trained_through}; both must end before it, on the same day"
            )
    for row in control + candidate:
        for name, auc in zip(config.served, _aucs(row, config.served), strict=True):
            if auc is None:
                shortcomings.append(f"{row.arm} has no AUC of {name} on {row.event_date}: only one class occurs")
    return shortcomings + positives_problems(candidate, config, config.min_positives, "gate.min_positives")


def positives_problems(rows: list[LedgerRow], config: GateConfig, at_least: int, setting: str) -> list[str]:
    """Served objectives with too few positives over the rows' days to be judged by; `setting` names the limit.

    It says so if as many a day can never be enough.
    """
    problems = []
    for name in config.served:
        counts = [row.scores[name].positives for row in rows if name in row.scores]
        positives, most = sum(counts), max(counts, default=0) * config.num_days
        if positives < at_least:
            never = ""
            if most < at_least and setting.endswith("min_positives"):
                never = f", which {config.num_days} such days never have: lower it, or raise gate.num_days"
            problems.append(f"{name} has {positives} positives, {setting} = {at_least} are needed{never}")
    return problems
