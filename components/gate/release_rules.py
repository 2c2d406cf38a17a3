"""The release rules: which checkpoints, if any, this run may publish."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import date

from components.common.digests import digest_json
from components.common.ledger import SERVED, LedgerRow
from components.common.releases import Action, Blessing, Pointer, Release
from components.common.trials import Trial
from components.gate.calibration import calibration_problems, positives_problems
from components.gate.config import GateConfig


@dataclass
class ReleaseRules:
    """What may be released on one day.

    Attributes:
        rows: The ledger up to the day.
        event_date: The day.
        production: What is served; None before the first publication.
        production_arm: The arm in production, or the one that is to be the first.
        trials: All trials, judged up to the day.
        config: The thresholds.
        releases: What was chosen.
        withheld: What was not, and why.
    """

    rows: Sequence[LedgerRow]
    event_date: date
    production: Pointer | None
    production_arm: str
    trials: Sequence[Trial]
    config: GateConfig
    releases: list[Release] = field(default_factory=list)
    withheld: list[str] = field(default_factory=list)

    def choose(self, excluded: frozenset[str] = frozenset()) -> None:
        """Choose what to publish; `excluded` are arms that have failed or are retired.

        - Nothing is served yet: the production arm, if it passes the absolute floors (first-model rule).
        - An arm on probation is surely better than its successor: back to production.
        - A candidate is blessed: to production (`promote`) or to its own channel (`experiment`), if it also holds
          against the served version on the newest day; the best of several.
        - Unless another arm came to production just now: the production arm's fresh checkpoint, if it holds likewise.

        Whatever does not pass is withheld, with its reasons, and may pass on another day.
        """
        if self.production is None:
            floors = f"every served objective has AUC of at least {self.config.min_auc} and is calibrated"
            self._consider("first", self.production_arm, floors, self._first_model_problems(self.production_arm))
            return
        for trial in self._standing("probation", excluded):
            if not self.releases:
                why = (
                    f"{self.production.arm} turned out worse: {'; '.join(trial.newest.reasons if trial.newest else ())}"
                )
                self._consider("return", trial.candidate, why, self._guard_problems(trial.candidate))
        for trial in self._standing("candidate", excluded):
            if not self.releases:
                action: Action = "promote" if self.config.on_blessing == "promote" else "experiment"
                why = f"blessed on {trial.decided_on}"
                self._consider(action, trial.candidate, why, self._guard_problems(trial.candidate))
        if not any(release.action in ("promote", "return") for release in self.releases):
            self._refresh(self.production)

    def _standing(self, kind: str, excluded: frozenset[str]) -> list[Trial]:
        """Blessed trials against the arm in production since it came there, the largest gain first."""
        assert self.production is not None
        standing = [
            trial
            for trial in self.trials
            if trial.kind == kind
            and trial.answer == "blessed"
            and trial.control == self.production.arm
            and trial.decided_on is not None
            and trial.decided_on >= self.production.arm_since
            and trial.candidate not in excluded
        ]
        return sorted(standing, key=lambda trial: -_percent(trial))

    def _refresh(self, production: Pointer) -> None:
        fresh = self._today(production.arm)
        if fresh is not None and fresh.checkpoint_digest == production.checkpoint_digest:
            self.withheld.append(f"refresh of {production.arm}: its newest scored checkpoint is served already")
            return
        why = "no served objective falls below the served version by more than the guard"
        self._consider("refresh", production.arm, why, self._guard_problems(production.arm))

    def _consider(self, action: Action, arm: str, why: str, problems: list[str]) -> None:
        chosen = self._today(arm)
        if problems or chosen is None:
            self.withheld.extend(f"{action} of {arm}: {problem}" for problem in problems)
            return
        self.releases.append(
            Release(
                action=action,
                arm=arm,
                checkpoint_digest=chosen.checkpoint_digest,
                trained_through=chosen.trained_through,
                reasons=(why,),
            )
        )

    def _today(self, name: str) -> LedgerRow | None:
        return next((row for row in self.rows if row.arm == name and row.event_date == self.event_date), None)

    def _window(self, arm: str) -> list[LedgerRow]:
        """An arm's rows of the newest days, by the recipe that it has now."""
        by_day = {row.event_date: row for row in self.rows if row.arm == arm}
        newest = by_day[max(by_day)].recipe_digest if by_day else ""
        same = [by_day[day] for day in sorted(by_day) if by_day[day].recipe_digest == newest]
        return same[-self.config.num_days :]

    def _first_model_problems(self, arm: str) -> list[str]:
        """What keeps an arm from being the first model: AUC of the day, positives and calibration of the window."""
        window, config = self._window(arm), self.config
        if not window or window[-1].event_date != self.event_date:
            return ["it is not scored on this day"]
        problems, scores = [], window[-1].scores
        for name in config.served:
            auc = scores[name].auc if name in scores else None
            if auc is None or not auc >= config.min_auc:
                shown = "undefined" if auc is None else f"{auc:.4f}"
                problems.append(f"AUC of {name} is {shown}, at least {config.min_auc} is needed")
        days = config.num_days
        problems += positives_problems(window, config, config.min_positives, "gate.min_positives", days)
        return problems + calibration_problems(window, config)

    def _guard_problems(self, arm: str) -> list[str]:
        """What keeps an arm's fresh checkpoint from replacing the served version."""
        fresh, served, config = self._today(arm), self._today(SERVED), self.config
        if fresh is None or served is None:
            return ["the fresh and the served model are not both scored on this day"]
        window, days = self._window(arm), config.num_days
        problems = positives_problems(window, config, config.min_positives, "gate.min_positives", days)
        problems += positives_problems([fresh], config, config.min_day_positives, "gate.min_day_positives")
        problems += calibration_problems([fresh], config)
        for name in config.served:
            new = fresh.scores[name].auc if name in fresh.scores else None
            old = served.scores[name].auc if name in served.scores else None
            if new is None or old is None:
                problems.append(f"{name} has no AUC on this day")
            elif not new >= old * (1 - config.max_refresh_loss_percent / 100):
                lost = config.max_refresh_loss_percent
                problems.append(f"{name} falls from {old:.4f} to {new:.4f}, more than {lost}%")
        return problems


def decide_release(
    pipeline: str, rules: ReleaseRules, notes: tuple[str, ...] = (), excluded: frozenset[str] = frozenset()
) -> Blessing:
    """The gate's word on a day: the verdicts on the trials that were open, and what may be published."""
    rules.choose(excluded)
    newest = [trial.newest for trial in rules.trials if trial.newest is not None]
    return Blessing(
        pipeline=pipeline,
        event_date=rules.event_date,
        production=rules.production_arm,
        verdicts=tuple(verdict for verdict in newest if verdict.event_date == rules.event_date),
        notes=notes,
        releases=tuple(rules.releases),
        withheld=tuple(rules.withheld),
        ledger_digest=inputs_digest(rules.rows, rules.trials, rules.event_date, rules.config),
        served=rules.config.served,
        thresholds=rules.config.model_dump(mode="json"),
    )


def inputs_digest(rows: Sequence[LedgerRow], trials: Sequence[Trial], event_date: date, config: GateConfig) -> str:
    """Digest of everything that a day's word is made from, except which version is in production."""
    before = [trial.before(event_date).model_dump(mode="json") for trial in trials]
    return digest_json([config.model_dump(mode="json"), [row.model_dump(mode="json") for row in rows], before])


def _percent(trial: Trial) -> float:
    gain = trial.newest.gain if trial.newest else None
    return gain.percent if gain else 0.0
