"""Ledger rows and trials made by hand."""

from __future__ import annotations

from datetime import date

from components.common.ledger import LedgerRow, ObjectiveScore
from components.common.trials import Trial, TrialVerdict
from components.features.objectives import DEFAULT_SERVED


def ledger_row(
    arm: str,
    day: int,
    auc: float | dict[str, float] | None = 0.7,
    positives: int = 1000,
    calibration: float | None = 1.0,
    examples: str = "rows",
    checkpoint: str | None = None,
    recipe: str = "recipe",
    replicates: tuple[float, ...] = (),
) -> LedgerRow:
    """A row of January 2026 with the same scores for both served objectives, unless `auc` says otherwise."""
    scores = {
        name: ObjectiveScore(
            rows=10_000,
            positives=positives,
            auc=auc[name] if isinstance(auc, dict) else auc,
            pr_auc=0.1,
            log_loss=0.2,
            mean_prediction=(calibration or 0.0) * positives / 10_000,
            calibration=calibration,
            auc_replicates=replicates,
        )
        for name in DEFAULT_SERVED
    }
    return LedgerRow(
        arm=arm,
        event_date=date(2026, 1, day),
        trained_through=date.fromordinal(date(2026, 1, day).toordinal() - 1),
        checkpoint_digest=checkpoint or f"{arm}-{day}",
        recipe_digest=f"{arm}-{recipe}",
        examples_digest=f"{examples}-{day}",
        inputs_digest="",
        scores=scores,
    )


def trial(**changes) -> Trial:
    """A trial of the Sparse Optimizer against the baseline from 1 January on."""
    values = {
        "kind": "candidate",
        "candidate": "sparse_optimizer",
        "control": "baseline",
        "candidate_recipe": "s",
        "control_recipe": "b",
        "first_day": date(2026, 1, 1),
        "looks": (2, 4),
        "evidence": "point",
        "alpha": 0.025,
    }
    return Trial(**(values | changes))


def with_verdict(one: Trial, day: date, answer: str, **facts) -> Trial:
    """A trial with a verdict on a day."""
    about = {"trial": one.name, "kind": one.kind, "candidate": one.candidate, "control": one.control}
    verdict = TrialVerdict(**({"event_date": day, "answer": answer, "reasons": ("so it is",)} | about | facts))
    return one.model_copy(update={"verdicts": (*one.verdicts, verdict)})
