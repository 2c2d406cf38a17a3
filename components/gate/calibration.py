"""Whether positives come about as often as they are predicted, and whether there are enough to say so."""

from __future__ import annotations

import math
from collections.abc import Sequence

from components.common.ledger import LedgerRow, ObjectiveScore
from components.gate.config import GateConfig


def calibration_problems(rows: Sequence[LedgerRow], config: GateConfig) -> list[str]:
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


def count_positives(rows: Sequence[LedgerRow], objective: str) -> int:
    """Positive rows of an objective over some days."""
    return sum(row.scores[objective].positives for row in rows if objective in row.scores)


def positives_problems(
    rows: Sequence[LedgerRow], config: GateConfig, at_least: int, setting: str, num_days: int = 0
) -> list[str]:
    """Served objectives with too few positives over the rows' days to be judged by; `setting` names the limit.

    It says so if as many a day can never be enough within `num_days`, if that is given.
    """
    problems = []
    for name in config.served:
        counts = [row.scores[name].positives for row in rows if name in row.scores]
        positives, most = sum(counts), max(counts, default=0) * num_days
        if positives < at_least:
            never = ""
            if num_days and most < at_least:
                never = f", which {num_days} such days never have: lower it, or take more days"
            problems.append(f"{name} has {positives} positives, {setting} = {at_least} are needed{never}")
    return problems
