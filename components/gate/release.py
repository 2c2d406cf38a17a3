"""The release rules: which checkpoint, if any, this run may publish."""

from __future__ import annotations

from datetime import date

from components.common.digests import digest_json
from components.common.ledger import CANDIDATE, CONTROL, SERVED, LedgerRow
from components.common.objectives import SERVED_OBJECTIVES
from components.common.release import Action, Blessing, Pointer
from components.gate.config import GateConfig
from components.gate.gate import calibration_problems, decide, positives_problems


def decide_release(
    pipeline: str, rows: list[LedgerRow], event_date: date, production: Pointer | None, config: GateConfig
) -> Blessing:
    """Judge the candidate, then choose what to publish.

    - Nothing is served yet: the control, if it passes the absolute floors (first-model rule).
    - The candidate is blessed: to its own channel (`experiment`) or to production (`promote`).
    - Otherwise: the production arm's fresh checkpoint, if it passes the refresh guard.
    """
    verdict = decide(rows, event_date, config)
    today = {row.arm: row for row in rows if row.event_date == event_date}
    if production is None:
        action, arm, reasons = _first_model(today.get(CONTROL), config)
    elif verdict.blessed and production.arm != CANDIDATE:
        action, arm = ("promote" if config.on_blessing == "promote" else "experiment"), CANDIDATE
        reasons = ["the candidate is blessed"]
    else:
        window = [row for row in rows if row.arm == production.arm and row.event_date <= event_date]
        action, arm, reasons = _refresh(today, production, sorted(window, key=lambda r: r.event_date), config)
    chosen = today[arm] if action != "none" else None
    return Blessing(
        pipeline=pipeline,
        event_date=event_date,
        blessed=verdict.blessed,
        reasons=verdict.reasons,
        gain=verdict.gain,
        gain_by_objective=verdict.by_objective,
        days=verdict.days,
        action=action,
        action_reasons=tuple(reasons),
        arm=chosen.arm if chosen else "",
        checkpoint_digest=chosen.checkpoint_digest if chosen else "",
        trained_through=chosen.trained_through if chosen else None,
        ledger_digest=inputs_digest(rows, config),
    )


def inputs_digest(rows: list[LedgerRow], config: GateConfig) -> str:
    """Digest of everything that a verdict is made from, except which version is in production."""
    return digest_json([config.model_dump(mode="json"), [row.model_dump(mode="json") for row in rows]])


def _first_model(row: LedgerRow | None, config: GateConfig) -> tuple[Action, str, list[str]]:
    if row is None:
        return "none", "", ["first model: the control is not scored on this day"]
    problems = []
    for name in SERVED_OBJECTIVES:
        auc = row.scores[name].auc if name in row.scores else None
        if auc is None or auc < config.min_auc:
            problems.append(
                f"AUC of {name} is {'undefined' if auc is None else f'{auc:.4f}'}, at least {config.min_auc}"
            )
    problems += positives_problems([row], config) + calibration_problems([row], config)
    if problems:
        return "none", "", [f"first model: {problem}" for problem in problems]
    return "first", CONTROL, [f"first model: every served objective has AUC of at least {config.min_auc}"]


def _refresh(
    today: dict[str, LedgerRow], production: Pointer, window: list[LedgerRow], config: GateConfig
) -> tuple[Action, str, list[str]]:
    fresh, served = today.get(production.arm), today.get(SERVED)
    if fresh is None or served is None:
        return "none", "", ["refresh: the fresh and the served model are not both scored on this day"]
    if fresh.checkpoint_digest == production.checkpoint_digest:
        return "none", "", ["refresh: the newest scored checkpoint is served already"]
    problems = calibration_problems(window[-config.num_days :], config)
    for name in SERVED_OBJECTIVES:
        new, old = fresh.scores[name].auc, served.scores[name].auc
        if new is None or old is None:
            problems.append(f"{name} has no AUC on this day")
        elif (1 - new / old) * 100 > config.max_refresh_loss_percent:
            problems.append(f"{name} falls from {old:.4f} to {new:.4f}, more than {config.max_refresh_loss_percent}%")
    if problems:
        return "none", "", [f"refresh: {problem}" for problem in problems]
    return (
        "refresh",
        production.arm,
        ["refresh: no served objective falls below the served version by more than the guard"],
    )
