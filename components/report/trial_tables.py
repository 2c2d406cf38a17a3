"""What the page shows of a trial beside its figure: its arms' random starts, and slices of its rows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date

from components.common.arms import arm_of, ordered
from components.common.ledger import LedgerRow, SliceScore
from components.common.trials import Trial


@dataclass(frozen=True)
class StartRow:
    """Mean AUC of one start of an arm over a trial's days, by objective."""

    model: str
    aucs: dict[str, float]


@dataclass(frozen=True)
class SliceRow:
    """AUC on one slice over a trial's days, each day counting by its positives.

    Attributes:
        name: The slice.
        objective: Of which predictions.
        positives: Over the days.
        control: AUC; None if no day has one.
        candidate: Likewise.
    """

    name: str
    objective: str
    positives: int
    control: float | None
    candidate: float | None


def start_rows(trial: Trial, ledger: Sequence[LedgerRow], served: tuple[str, ...]) -> list[StartRow]:
    """Of both arms, the control's first; none if each has one start."""
    days = _days(trial)
    rows = [row for row in ledger if row.event_date in days and arm_of(row.arm) in (trial.control, trial.candidate)]
    names = ordered([row.arm for row in rows], (trial.control, trial.candidate))
    if len(names) <= 2:
        return []
    found = []
    for name in names:
        aucs = {}
        for objective in served:
            known = [
                auc
                for row in rows
                if row.arm == name and objective in row.scores and (auc := row.scores[objective].auc) is not None
            ]
            if known:
                aucs[objective] = sum(known) / len(known)
        found.append(StartRow(name, aucs))
    return found


def slice_rows(trial: Trial, ledger: Sequence[LedgerRow], served: tuple[str, ...]) -> list[SliceRow]:
    """Of the first start of both arms."""
    days, found = _days(trial), []
    of_arms = [
        [row for row in ledger if row.event_date in days and row.arm == arm] for arm in (trial.control, trial.candidate)
    ]
    for objective in served:
        names = {
            name for rows in of_arms for row in rows if objective in row.scores for name in row.scores[objective].slices
        }
        for name in sorted(names):
            sliced = [
                [row.scores[objective].slices.get(name) for row in rows if objective in row.scores] for rows in of_arms
            ]
            control, candidate = ([score for score in scores if score is not None] for scores in sliced)
            positives = sum(score.positives for score in control)
            found.append(SliceRow(name, objective, positives, _mean_auc(control), _mean_auc(candidate)))
    return found


def _days(trial: Trial) -> set[date]:
    return set(trial.newest.days) if trial.newest else set()


def _mean_auc(scores: Sequence[SliceScore]) -> float | None:
    known = [(score.auc, score.positives) for score in scores if score.auc is not None]
    total = sum(positives for _, positives in known)
    return sum(auc * positives for auc, positives in known) / total if total else None
