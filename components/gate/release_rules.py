"""The release rules: which checkpoints, if any, this run may publish."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import date
from types import MappingProxyType

from components.common.arms import ArmFailure
from components.common.digests import digest_json
from components.common.ledger import ARMS, CANDIDATE, CONTROL, SERVED, LedgerRow
from components.common.releases import Action, Blessing, Pointer, Release
from components.gate.config import GateConfig
from components.gate.gate import calibration_problems, decide, positives_problems, scored_window


def decide_release(
    pipeline: str,
    rows: list[LedgerRow],
    event_date: date,
    production: Pointer | None,
    config: GateConfig,
    failures: Mapping[str, ArmFailure] = MappingProxyType({}),
) -> Blessing:
    """Judge the candidate, then choose what to publish.

    - Nothing is served yet: the best arm of those that pass the absolute floors (first-model rule), or the control.
    - The candidate is blessed: to production (`promote`) or to its own channel (`experiment`), if it also holds against
      the served version on the newest day.
    - Unless the candidate was promoted just now: the production arm's fresh checkpoint, if it holds likewise (refresh).

    Whatever does not pass is withheld, with its reasons; `failures` are why an arm is not scored any more.
    """
    verdict = decide(rows, event_date, config)
    failed = tuple(f"{arm} failed on {failure.day}: {failure.reason}" for arm, failure in failures.items())
    today = {row.arm: row for row in rows if row.event_date == event_date}
    releases: list[Release] = []
    withheld: list[str] = []

    def consider(action: Action, arm: str, why: str, problems: list[str]) -> None:
        if problems:
            withheld.extend(f"{action} of {arm}: {problem}" for problem in problems)
            return
        chosen = today[arm]
        releases.append(
            Release(
                action=action,
                arm=arm,
                checkpoint_digest=chosen.checkpoint_digest,
                trained_through=chosen.trained_through,
                reasons=(why,),
            )
        )

    if production is None:
        floors = f"every served objective has AUC of at least {config.min_auc} and is calibrated"
        arms = ARMS if config.first == "best" else (CONTROL,)
        against = {arm: _first_model_problems(arm, rows, event_date, config) for arm in arms}
        # The best of those that pass; if none does, of all.
        best = min(arms, key=lambda arm: (bool(against[arm]), -_mean_auc(today.get(arm), config)))
        consider("first", best, floors, against[best])
    else:
        if verdict.blessed and production.arm != CANDIDATE:
            problems = _guard_problems(CANDIDATE, rows, event_date, config)
            consider("promote" if config.on_blessing == "promote" else "experiment", CANDIDATE, "blessed", problems)
        if not any(release.action == "promote" for release in releases):
            fresh = today.get(production.arm)
            if fresh is not None and fresh.checkpoint_digest == production.checkpoint_digest:
                withheld.append(f"refresh of {production.arm}: its newest scored checkpoint is served already")
            else:
                why = "no served objective falls below the served version by more than the guard"
                problems = _guard_problems(production.arm, rows, event_date, config)
                consider("refresh", production.arm, why, problems)
    return Blessing(
        pipeline=pipeline,
        event_date=event_date,
        blessed=verdict.blessed,
        reasons=(*failed, *verdict.reasons),
        gain=verdict.gain,
        gain_by_objective=verdict.by_objective,
        min_gain_percent=config.min_gain_percent,
        days=verdict.days,
        releases=tuple(releases),
        withheld=tuple(withheld),
        ledger_digest=inputs_digest(rows, config),
        served=config.served,
        thresholds=config.model_dump(mode="json"),
    )


def inputs_digest(rows: list[LedgerRow], config: GateConfig) -> str:
    """Digest of everything that a verdict is made from, except which version is in production."""
    return digest_json([config.model_dump(mode="json"), [row.model_dump(mode="json") for row in rows]])


def _first_model_problems(arm: str, rows: list[LedgerRow], event_date: date, config: GateConfig) -> list[str]:
    """What keeps an arm from being the first model: AUC of the day, positives and calibration of the window."""
    window = scored_window(rows, arm, event_date, config.num_days)
    if not window or window[-1].event_date != event_date:
        return ["it is not scored on this day"]
    problems, scores = [], window[-1].scores
    for name in config.served:
        auc = scores[name].auc if name in scores else None
        if auc is None or not auc >= config.min_auc:
            shown = "undefined" if auc is None else f"{auc:.4f}"
            problems.append(f"AUC of {name} is {shown}, at least {config.min_auc} is needed")
    problems += positives_problems(window, config, config.min_positives, "gate.min_positives")
    return problems + calibration_problems(window, config)


def _mean_auc(row: LedgerRow | None, config: GateConfig) -> float:
    aucs = [row.scores[name].auc or 0.0 for name in config.served if name in row.scores] if row else []
    return sum(aucs) / len(config.served)


def _guard_problems(arm: str, rows: list[LedgerRow], event_date: date, config: GateConfig) -> list[str]:
    """What keeps an arm's fresh checkpoint from replacing the served version."""
    today = {row.arm: row for row in rows if row.event_date == event_date}
    fresh, served = today.get(arm), today.get(SERVED)
    if fresh is None or served is None:
        return ["the fresh and the served model are not both scored on this day"]
    window = scored_window(rows, arm, event_date, config.num_days)
    problems = positives_problems(window, config, config.min_positives, "gate.min_positives")
    problems += positives_problems([fresh], config, config.min_day_positives, "gate.min_day_positives")
    problems += calibration_problems([fresh], config)
    for name in config.served:
        new = fresh.scores[name].auc if name in fresh.scores else None
        old = served.scores[name].auc if name in served.scores else None
        if new is None or old is None:
            problems.append(f"{name} has no AUC on this day")
        elif not new >= old * (1 - config.max_refresh_loss_percent / 100):
            problems.append(f"{name} falls from {old:.4f} to {new:.4f}, more than {config.max_refresh_loss_percent}%")
    return problems
