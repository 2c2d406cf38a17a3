"""The rules of a trial: is the candidate's recipe better than the control's on unseen days, and is that sure?"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date

from scipy.stats import norm

from components.common.arms import starts_of
from components.common.ledger import LedgerRow
from components.common.trials import Answer, Trial, TrialVerdict
from components.gate.boundary import nominal_levels
from components.gate.calibration import calibration_problems, count_positives, positives_problems
from components.gate.config import GateConfig
from components.gate.estimate import Estimate, Starts, estimate_gain


@dataclass(frozen=True)
class TrialDays:
    """The days of a trial so far: those on which every start of both arms was scored.

    Attributes:
        trial: Whose.
        candidate: The rows of its starts, by day.
        control: On the same days.
    """

    trial: Trial
    candidate: Sequence[Starts]
    control: Sequence[Starts]

    @classmethod
    def of(cls, trial: Trial, rows: Sequence[LedgerRow], event_date: date, replicas: tuple[int, int]) -> TrialDays:
        """The days of a ledger; `replicas` of the candidate and of the control.

        Raises:
            ValueError: If two models were scored on different rows of a day.
        """
        found: dict[date, dict[str, LedgerRow]] = {}
        for row in rows:
            if trial.first_day <= row.event_date <= event_date:
                found.setdefault(row.event_date, {})[row.arm] = row
        arms = [starts_of(arm, number) for arm, number in zip((trial.candidate, trial.control), replicas, strict=True)]
        days = [day for day in sorted(found) if all(name in found[day] for starts in arms for name in starts)]
        candidate, control = ([[found[day][name] for name in starts] for day in days] for starts in arms)
        for rows_of_day in zip(candidate, control, strict=True):
            first, *others = [row for starts in rows_of_day for row in starts]
            for row in others:
                if row.examples_digest != first.examples_digest:
                    raise ValueError(
                        f"ledger of {row.event_date}: {first.arm} was scored on examples {first.examples_digest[:12]}, "
                        f"{row.arm} on {row.examples_digest[:12]}; the arms must see the same rows"
                    )
        return cls(trial, candidate, control)

    def first(self, number: int) -> TrialDays:
        """The first days of it."""
        return TrialDays(self.trial, self.candidate[:number], self.control[:number])

    @property
    def days(self) -> tuple[date, ...]:
        """Which days."""
        return tuple(starts[0].event_date for starts in self.control)

    @property
    def served_rows(self) -> list[LedgerRow]:
        """Those of the start of the candidate that would be served."""
        return [starts[0] for starts in self.candidate]

    def positives(self, config: GateConfig) -> dict[str, int]:
        """Positive rows of each served objective."""
        return {name: count_positives(self.served_rows, name) for name in config.served}


def judge_trial(trial: Trial, days: TrialDays, event_date: date, config: GateConfig) -> TrialVerdict:
    """What is to be said of a trial on a day.

    On a look, the candidate is blessed if its cumulative AUC gain reaches `min_gain_percent`, no served objective loses
    more than its guard, its calibration holds, and, unless a point estimate is enough, the gain is above zero at the
    level of the look. It is rejected at the last look, or as soon as it is as surely worse. Anything that is missing
    counts against it.
    """
    num_days = len(days.days)
    look = trial.looks.index(num_days) + 1 if num_days in trial.looks and days.days[-1] == event_date else 0
    # A day may come after the last look's, if that had been judged without it.
    is_last = num_days >= trial.looks[-1]
    verdict = TrialVerdict(
        trial=trial.name,
        kind=trial.kind,
        candidate=trial.candidate,
        control=trial.control,
        event_date=event_date,
        answer="undecided",
        reasons=(),
        days=days.days,
        positives=days.positives(config),
        look=len(trial.looks) if is_last else look,
        num_looks=len(trial.looks),
    )
    missing = _missing(days, config)
    if missing:
        return verdict.model_copy(update={"answer": "rejected" if is_last else "undecided", "reasons": tuple(missing)})
    estimate = estimate_gain(days.candidate, days.control, config.served, config.start_sd_percent)
    of_objective = {
        name: estimate_gain(days.candidate, days.control, (name,), config.start_sd_percent) for name in config.served
    }
    boundary = _boundary(days, estimate, config) if trial.evidence == "confident" else None
    verdict = verdict.model_copy(
        update={
            "gain": estimate.gain,
            "gain_by_objective": {name: one.gain for name, one in of_objective.items()},
            "standard_error": estimate.standard_error,
            "p_value": estimate.p_value(),
            "boundary": tuple(boundary.gains) if boundary else (),
        }
    )
    if not verdict.look:
        coming = next(looked for looked in trial.looks if looked > num_days)
        look = trial.looks.index(coming) + 1
        wait = f"{num_days} days are scored, and look {look} of {len(trial.looks)} is after {coming}"
        return verdict.model_copy(update={"reasons": (wait,), "needed": _needed(days, estimate, config)})
    level = boundary.levels[verdict.look - 1] if boundary else None
    answer, reasons = _decision(days, estimate, _against(days, estimate, of_objective, config), level, verdict.look)
    if answer == "undecided" and is_last:
        answer = "rejected"
    needed = _needed(days, estimate, config) if answer == "undecided" else ""
    return verdict.model_copy(update={"answer": answer, "reasons": tuple(reasons), "level": level, "needed": needed})


def _missing(days: TrialDays, config: GateConfig) -> list[str]:
    """Why no gain can be computed."""
    if not days.days:
        return ["no day is scored by both arms"]
    missing = []
    for ours, theirs in zip(days.candidate, days.control, strict=True):
        through = {row.trained_through for row in (*ours, *theirs)}
        if len(through) > 1 or max(through) >= ours[0].event_date:
            missing.append(
                f"on {ours[0].event_date} the candidate had seen days through {ours[0].trained_through}, the control "
                f"through {theirs[0].trained_through}; all must end before it, on the same day"
            )
        for row in (*ours, *theirs):
            for name in config.served:
                if name not in row.scores or row.scores[name].auc is None:
                    missing.append(f"{row.arm} has no AUC of {name} on {row.event_date}: only one class occurs")
    return missing


def _against(days: TrialDays, estimate: Estimate, of_objective: dict[str, Estimate], config: GateConfig) -> list[str]:
    """What of the first condition does not hold."""
    against = []
    if not estimate.percent >= config.min_gain_percent:
        against.append(
            f"cumulative AUC gain {estimate.percent:+.3f}% is below the threshold {config.min_gain_percent:+.2f}%"
        )
    for name, own in of_objective.items():
        if not own.percent >= -config.max_objective_loss_percent:
            against.append(f"{name} loses {-own.percent:.3f}%, more than {config.max_objective_loss_percent}%")
    rows, end = days.served_rows, days.trial.looks[-1]
    against += positives_problems(rows, config, config.min_positives, "gate.min_positives", end)
    return against + calibration_problems(rows[-config.num_days :], config)


def _decision(
    days: TrialDays, estimate: Estimate, against: list[str], level: float | None, number: int
) -> tuple[Answer, list[str]]:
    """What a look with a number and a level says, and why."""
    trial = days.trial
    gained = f"cumulative AUC gain {estimate.percent:+.3f}% over {len(days.days)} days"
    if trial.evidence == "point":
        return ("undecided", against) if against else ("blessed", [f"{gained} reaches the threshold"])
    p_value, p_worse = estimate.p_value(), estimate.p_value(-1)
    if p_value is None or p_worse is None or level is None:
        return "undecided", [
            *against,
            "the error of the gain is not known: with one random start of each arm nothing tells chance from a gain; "
            "give new arms replicas, or set gate.start_sd_percent",
        ]
    look = f"look {number} of {len(trial.looks)}"
    if p_worse <= level:
        return "rejected", [f"{gained} is surely below zero: p {p_worse:.2g}, level {level:.2g} of {look}", *against]
    if p_value > level:
        return "undecided", [*against, f"{gained} may be chance: p {p_value:.2g}, level {level:.2g} of {look}"]
    if against:
        return "undecided", against
    sure = f"and is surely above zero: p {p_value:.2g}, level {level:.2g} of {look}"
    return "blessed", [f"{gained} reaches the threshold, {sure}"]


@dataclass(frozen=True)
class _Boundary:
    """The level of each look, and the gain that is sure at it, in percent."""

    levels: list[float]
    gains: list[float]


def _boundary(days: TrialDays, estimate: Estimate, config: GateConfig) -> _Boundary | None:
    """The boundary of all looks; those to come are projected as if their days were like those seen."""
    trial, num_days = days.trial, len(days.days)
    if estimate.standard_error is None:
        return None
    positives, errors = [], []
    for number in trial.looks:
        seen = days.first(number) if number <= num_days else days
        growth = max(number / num_days, 1.0)
        positives.append(growth * max(sum(seen.positives(config).values()), 1))
        at = estimate.after(growth)
        if number < num_days:
            at = estimate_gain(seen.candidate, seen.control, config.served, config.start_sd_percent)
        errors.append(at)
    levels = nominal_levels(trial.alpha, [number / trial.looks[-1] for number in trial.looks], positives)
    gains = [at.quantile(level) * (at.standard_error or 0.0) for at, level in zip(errors, levels, strict=True)]
    return _Boundary(levels, gains)


def _needed(days: TrialDays, estimate: Estimate, config: GateConfig) -> str:
    """How many days more would be enough for the wanted power, if they are like those seen.

    The error over users falls with the days; that over random starts does not, only with more replicas. Counted for a
    single test at the trial's level, at the gain seen or the least that blesses.
    """
    trial, user_sd, starts = days.trial, estimate.user_sd, estimate.start_variance
    if trial.evidence == "point" or user_sd is None or starts is None:
        return ""
    num_days, gain = len(days.days), max(estimate.percent, config.min_gain_percent)
    if gain <= 0:
        return ""
    allowed = (gain / (norm.isf(trial.alpha) + norm.ppf(config.power))) ** 2
    shown = f"a true gain of {gain:+.2f}% with power {config.power:.0%}"
    if starts >= allowed:
        replicas = math.ceil(2 * (estimate.start_sd or 0.0) ** 2 / allowed) + 1
        return f"days alone cannot show {shown}: random starts differ too much, and about {replicas} replicas would"
    total = math.ceil(num_days * user_sd**2 / (allowed - starts))
    if total <= num_days:
        return f"as many days can show {shown}; the next look decides"
    positives = round(sum(days.positives(config).values()) * (total - num_days) / num_days)
    late = f", {total - trial.looks[-1]} after its end" if total > trial.looks[-1] else ""
    return f"{total - num_days} more days{late}, about {positives} positives, to show {shown}"
