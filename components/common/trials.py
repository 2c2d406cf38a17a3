"""Trials: which arm is compared with the one in production, since when, by which rules, and what came of it."""

from __future__ import annotations

from datetime import date
from typing import Literal

from components.common.config import Config
from components.common.layout import Store
from components.common.records import create_record, find_record, write_record

Answer = Literal["blessed", "rejected", "undecided"]
# A candidate is to replace the arm in production; an arm that was replaced is to come back if its successor is worse.
Kind = Literal["candidate", "probation"]
Evidence = Literal["confident", "point"]


class Gain(Config):
    """Cumulative AUC gain of the candidate over the control, in percent, with its 95% interval."""

    percent: float
    low: float | None
    high: float | None


class TrialVerdict(Config):
    """What the gate says of a trial on one day.

    Attributes:
        trial: Its name.
        kind: What is at stake.
        candidate: The arm that is judged.
        control: The arm in production that it is compared with.
        event_date: The newest scored day.
        answer: `undecided` until a look decides.
        reasons: Why, or everything that stands against a blessing.
        gain: Over all served objectives; None when it could not be computed.
        gain_by_objective: For each served objective.
        days: The days that the gain was taken over: all of the trial's.
        positives: Positive rows of each served objective on these days.
        look: Number of the look, from 1; 0 on a day between two.
        num_looks: How many there are.
        standard_error: Of the gain, in percent, by users and random starts; None if it is not known.
        p_value: Chance of such a gain, or a larger one, between equal recipes; None likewise.
        level: What it must not exceed at this look.
        boundary: The gain that is sure at each look, in percent; projected for those to come. Empty if none is.
        needed: What an undecided trial needs still.
    """

    trial: str
    kind: Kind
    candidate: str
    control: str
    event_date: date
    answer: Answer
    reasons: tuple[str, ...]
    gain: Gain | None = None
    gain_by_objective: dict[str, Gain] = {}
    days: tuple[date, ...] = ()
    positives: dict[str, int] = {}
    look: int = 0
    num_looks: int = 0
    standard_error: float | None = None
    p_value: float | None = None
    level: float | None = None
    boundary: tuple[float, ...] = ()
    needed: str = ""


class Trial(Config):
    """One comparison, recorded before its first day is scored.

    Attributes:
        kind: What is at stake.
        candidate: The arm that is judged.
        control: The arm in production.
        candidate_recipe: Digest of its recipe.
        control_recipe: Likewise.
        first_day: The first day that counts.
        looks: After how many scored days it is decided, in order; the last is the end.
        evidence: `point`: the gain reaches its threshold; `confident`: it is surely above zero as well.
        alpha: The chance, over all looks, that an equal recipe is blessed.
        verdicts: One a day so far, oldest first.
        abandoned: Why it ended without an answer; empty if it did not.
        abandoned_on: When.
    """

    kind: Kind
    candidate: str
    control: str
    candidate_recipe: str
    control_recipe: str
    first_day: date
    looks: tuple[int, ...]
    evidence: Evidence
    alpha: float
    verdicts: tuple[TrialVerdict, ...] = ()
    abandoned: str = ""
    abandoned_on: date | None = None

    @property
    def name(self) -> str:
        """Of its file: in the order of the first days."""
        return f"{self.first_day}-{self.candidate}-against-{self.control}"

    @property
    def newest(self) -> TrialVerdict | None:
        """The latest verdict."""
        return self.verdicts[-1] if self.verdicts else None

    @property
    def answer(self) -> Answer:
        """As of the latest verdict."""
        return self.newest.answer if self.newest else "undecided"

    @property
    def decided_on(self) -> date | None:
        """The day of its answer."""
        return self.newest.event_date if self.newest and self.newest.answer != "undecided" else None

    @property
    def is_open(self) -> bool:
        """Whether it still waits for an answer."""
        return self.answer == "undecided" and not self.abandoned

    def before(self, event_date: date) -> Trial:
        """As it was before a day was judged, which a run that is repeated does again."""
        gone = self.abandoned_on is not None and self.abandoned_on >= event_date
        changes = {"abandoned": "", "abandoned_on": None} if gone else {}
        kept = tuple(verdict for verdict in self.verdicts if verdict.event_date < event_date)
        return self.model_copy(update={"verdicts": kept, **changes})


def read_trials(store: Store) -> list[Trial]:
    """All trials, in order of their first days.

    Raises:
        InputError: If a record is damaged.
    """
    remedy = "restore it: what its looks have spent of alpha is known from nothing else"
    found = (find_record(store.trial(name), Trial, remedy) for name in store.trials())
    return [trial for trial in found if trial is not None]


def open_trial(store: Store, trial: Trial) -> bool:
    """Record a trial, unless it is there; returns whether it was not."""
    return create_record(store.trial(trial.name), trial)


def write_trial(store: Store, trial: Trial) -> None:
    """Write what came of a trial so far."""
    write_record(store.trial(trial.name), trial)
