from datetime import date

import numpy as np
import pytest

from components.gate.config import GateConfig
from components.gate.trial_rules import TrialDays, judge_trial
from tests.unit.gate.rows import ledger_row, trial

CONFIG = GateConfig(evidence="point", num_days=2, trial_days=4, min_positives=100)
SURE = GateConfig(trial_days=4, look_every_days=2, min_positives=100, start_sd_percent=0.1)
NOISE = np.random.default_rng(1).normal(0, 0.02, 300)
OTHER_NOISE = np.random.default_rng(2).normal(0, 0.004, 300)


def arms(control: list, candidate: list, **kwargs):
    rows = [ledger_row("baseline", day, auc) for day, auc in enumerate(control, start=1)]
    return rows + [ledger_row("sparse_optimizer", day, auc, **kwargs) for day, auc in enumerate(candidate, start=1)]


def resampled(control: list[float], candidate: list[float]):
    """The same with replicates: users move both arms alike, and each a little by itself."""
    rows = []
    for arm, aucs, noise in (("baseline", control, NOISE), ("sparse_optimizer", candidate, NOISE + OTHER_NOISE)):
        for day, auc in enumerate(aucs, start=1):
            rows.append(ledger_row(arm, day, auc, replicates=tuple(auc + np.roll(noise, 37 * day))))
    return rows


def judge(rows, day: int, config=CONFIG, replicas=(1, 1), **changes):
    one, event_date = trial(**({"evidence": config.evidence} | changes)), date(2026, 1, day)
    return judge_trial(one, TrialDays.of(one, rows, event_date, replicas), event_date, config)


@pytest.mark.parametrize(("auc", "answer"), [(0.7007, "blessed"), (0.70069, "undecided")])
def test_threshold_is_a_tenth_of_a_percent(auc, answer):
    assert judge(arms([0.7, 0.7], [auc + 1e-12] * 2), 2).answer == answer


def test_gain_is_over_all_days_of_the_trial():
    """A good newest window does not make a bad beginning forgotten."""
    verdict = judge(arms([0.7] * 4, [0.6, 0.6, 0.74, 0.74]), 4)
    assert verdict.gain is not None and verdict.gain.percent == pytest.approx((2.68 / 2.8 - 1) * 100)
    assert verdict.answer == "rejected" and len(verdict.days) == 4


def test_days_before_the_trial_do_not_count():
    verdict = judge(arms([0.7] * 3, [0.1, 0.71, 0.71]), 3, first_day=date(2026, 1, 2))
    assert verdict.answer == "blessed" and verdict.days[0] == date(2026, 1, 2)


def test_days_after_the_judged_one_are_not_seen():
    assert judge(arms([0.7] * 3, [0.6, 0.6, 0.99]), 2).answer == "undecided"


def test_between_two_looks_nothing_is_decided():
    verdict = judge(arms([0.7] * 3, [0.9] * 3), 3, looks=(2, 4))
    assert (verdict.answer, verdict.look) == ("undecided", 0) and "look 2 of 2 is after 4" in verdict.reasons[0]


def test_last_look_rejects_what_it_does_not_bless():
    verdict = judge(arms([0.7] * 4, [0.7] * 4), 4)
    assert verdict.answer == "rejected" and "below the threshold" in verdict.reasons[0]


def test_one_objective_may_not_pay_for_another():
    unequal = {"checkout_given_click": 0.75, "checkout_given_view": 0.69}
    verdict = judge(arms([0.7, 0.7], [unequal, unequal]), 2)
    assert verdict.answer == "undecided"
    assert any("checkout_given_view loses 1.429%" in reason for reason in verdict.reasons)


@pytest.mark.parametrize(
    ("rows", "reason"),
    [
        ([], "no day is scored by both arms"),
        ([ledger_row("baseline", day) for day in (1, 2)], "no day is scored by both arms"),
        (arms([0.7], [0.9]), "1 days are scored"),
        (arms([0.7, 0.7], [0.9, 0.9])[:3], "1 days are scored"),
        (arms([0.7, 0.7], [0.9, 0.9], positives=10), "has 20 positives"),
        (arms([0.7, 0.7], [0.9, 0.9], calibration=2.0), "calibration of checkout_given_click is 2.000"),
        (arms([0.7, 0.7], [0.9, 0.9], positives=0), "no calibration"),
        (arms([0.7, 0.7], [0.9, None]), "only one class occurs"),
    ],
)
def test_anything_missing_counts_against(rows, reason):
    verdict = judge(rows, 2)
    assert verdict.answer == "undecided" and reason in "; ".join(verdict.reasons)


def test_day_that_only_one_arm_has_is_no_look():
    rows = [*arms([0.7, 0.7], [0.9, 0.9]), ledger_row("baseline", 3)]
    assert judge(rows, 3).look == 0


def test_every_start_has_to_be_scored():
    rows = arms([0.7, 0.7], [0.9, 0.9])
    verdict = judge(rows, 2, replicas=(2, 1))
    assert verdict.days == ()
    rows += [ledger_row("sparse_optimizer.1", day, 0.5) for day in (1, 2)]
    verdict = judge(rows, 2, replicas=(2, 1))
    assert verdict.gain is not None and verdict.gain.percent == pytest.approx(0.0)


def test_arms_scored_on_different_rows_are_an_error():
    rows = [ledger_row("baseline", 1), ledger_row("sparse_optimizer", 1, examples="others")]
    with pytest.raises(ValueError, match="must see the same rows"):
        judge(rows, 1)


def test_models_that_have_seen_the_day_count_against():
    rows = arms([0.7, 0.7], [0.9, 0.9])
    rows[-1] = rows[-1].model_copy(update={"trained_through": date(2026, 1, 2)})
    assert "all must end before it" in "; ".join(judge(rows, 2).reasons)


def test_large_gain_is_sure_and_a_small_one_is_not():
    large = judge(resampled([0.7] * 2, [0.74] * 2), 2, SURE)
    assert large.answer == "blessed" and "surely above zero" in large.reasons[0]
    assert large.p_value is not None and large.level is not None and large.p_value <= large.level < 0.025
    small = judge(resampled([0.7] * 2, [0.702] * 2), 2, SURE)
    assert small.gain is not None and small.gain.percent > 0.1
    assert small.answer == "undecided" and "may be chance" in small.reasons[0] and "days" in small.needed


def test_loss_that_is_sure_ends_a_trial_early():
    verdict = judge(resampled([0.7] * 2, [0.6] * 2), 2, SURE)
    assert verdict.answer == "rejected" and "surely below zero" in verdict.reasons[0]


def test_sure_gain_must_also_be_large_enough():
    rows = resampled([0.7] * 2, [0.74] * 2)
    verdict = judge(rows, 2, SURE.model_copy(update={"min_gain_percent": 10.0}))
    assert verdict.answer == "undecided" and verdict.reasons[0].startswith("cumulative AUC gain +5.714% is below")


def test_unknown_random_starts_are_never_sure():
    unknown = SURE.model_copy(update={"start_sd_percent": None})
    verdict = judge(resampled([0.7] * 4, [0.8] * 4), 4, unknown)
    assert verdict.answer == "rejected" and "error of the gain is not known" in verdict.reasons[0]


def test_boundary_falls_and_is_projected():
    verdict = judge(resampled([0.7] * 2, [0.702] * 2), 2, SURE)
    assert len(verdict.boundary) == 2 and verdict.boundary[0] > verdict.boundary[1] > 0


def test_starts_that_differ_too_much_need_replicas_rather_than_days():
    wide = SURE.model_copy(update={"start_sd_percent": 3.0})
    assert "replicas" in judge(resampled([0.7] * 2, [0.702] * 2), 2, wide).needed
