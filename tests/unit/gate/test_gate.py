from datetime import date

import numpy as np
import pytest

from components.common.ledger import ObjectiveScore
from components.gate.config import GateConfig
from components.gate.gate import calibration_problems, cumulative_gain, decide
from tests.unit.gate.rows import ledger_row

CONFIG = GateConfig(num_days=2, min_positives=100)


def arms(control: list[float], candidate: list[float], **kwargs):
    rows = [ledger_row("control", day, auc) for day, auc in enumerate(control, start=1)]
    return rows + [ledger_row("candidate", day, auc, **kwargs) for day, auc in enumerate(candidate, start=1)]


def test_gain_is_that_of_the_sums():
    verdict = decide(arms([0.70, 0.80], [0.71, 0.80]), date(2026, 1, 2), CONFIG)
    assert verdict.gain is not None
    assert verdict.gain.percent == pytest.approx((1.51 / 1.50 - 1) * 100)
    assert verdict.blessed
    assert verdict.days == (date(2026, 1, 1), date(2026, 1, 2))


@pytest.mark.parametrize(("auc", "blessed"), [(0.7007, True), (0.70069, False)])
def test_threshold_is_a_tenth_of_a_percent(auc, blessed):
    verdict = decide(arms([0.70, 0.70], [auc + 1e-12] * 2), date(2026, 1, 2), CONFIG)
    assert verdict.blessed is blessed


def test_only_the_newest_days_count():
    verdict = decide(arms([0.9, 0.7, 0.7], [0.1, 0.71, 0.71]), date(2026, 1, 3), CONFIG)
    assert verdict.blessed
    assert verdict.days[0] == date(2026, 1, 2)


def test_days_after_the_judged_one_are_not_seen():
    verdict = decide(arms([0.7, 0.7, 0.7], [0.6, 0.6, 0.99]), date(2026, 1, 2), CONFIG)
    assert not verdict.blessed


def test_one_objective_may_not_pay_for_another():
    rows = [ledger_row("control", day, 0.7) for day in (1, 2)]
    unequal = {"checkout_given_click": 0.75, "checkout_given_view": 0.69}
    rows += [ledger_row("candidate", day, unequal) for day in (1, 2)]
    verdict = decide(rows, date(2026, 1, 2), CONFIG)
    assert not verdict.blessed
    assert any("checkout_given_view loses 1.429%" in reason for reason in verdict.reasons)


@pytest.mark.parametrize(
    ("rows", "reason"),
    [
        ([], "0 of 2 days"),
        (arms([0.7], [0.9]), "1 of 2 days"),
        ([ledger_row("control", day) for day in (1, 2)], "0 of 2 days"),
        (arms([0.7, 0.7], [0.9, 0.9], positives=10), "has 20 positives"),
        (arms([0.7, 0.7], [0.9, 0.9], calibration=2.0), "calibration of checkout_given_click is 2.000"),
        (arms([0.7, 0.7], [0.9, 0.9], positives=0), "no calibration"),
        (arms([0.7, 0.7], [0.9, 0.9])[:3], "1 of 2 days"),
    ],
)
def test_anything_missing_counts_against(rows, reason):
    verdict = decide(rows, date(2026, 1, 2), CONFIG)
    assert not verdict.blessed
    assert reason in "; ".join(verdict.reasons)


def test_undefined_auc_counts_against():
    rows = arms([0.7, 0.7], [0.9, 0.9])
    rows[-1] = ledger_row("candidate", 2, None)
    verdict = decide(rows, date(2026, 1, 2), CONFIG)
    assert not verdict.blessed
    assert "only one class occurs" in "; ".join(verdict.reasons)


def test_missing_newest_day_counts_against():
    verdict = decide(arms([0.7, 0.7], [0.9, 0.9]), date(2026, 1, 3), CONFIG)
    assert not verdict.blessed
    assert "2026-01-03 is not scored" in "; ".join(verdict.reasons)


def test_arms_scored_on_different_rows_are_an_error():
    rows = [ledger_row("control", 1), ledger_row("candidate", 1, examples="others")]
    with pytest.raises(ValueError, match="must see the same rows"):
        decide(rows, date(2026, 1, 1), CONFIG)


def test_models_that_have_seen_the_day_count_against():
    rows = arms([0.7, 0.7], [0.9, 0.9])
    rows[-1] = rows[-1].model_copy(update={"trained_through": date(2026, 1, 2)})
    verdict = decide(rows, date(2026, 1, 2), CONFIG)
    assert not verdict.blessed
    assert "both must end before it" in "; ".join(verdict.reasons)


def test_days_without_positives_count_in_the_pool():
    rows = [ledger_row("control", 1)]
    idle = ledger_row("control", 2, None, positives=0)
    scores = {name: score.model_copy(update={"mean_prediction": 0.5}) for name, score in idle.scores.items()}
    assert calibration_problems([*rows, idle.model_copy(update={"scores": scores})], GateConfig())


def test_calibration_is_judged_against_its_noise():
    config = GateConfig(max_calibration=1.25, calibration_sigmas=2.0)
    assert not calibration_problems([ledger_row("control", 1, calibration=1.7, positives=31)], config)
    assert calibration_problems([ledger_row("control", 1, calibration=1.7, positives=1000)], config)
    assert calibration_problems([ledger_row("control", 1, calibration=0.5, positives=1000)], config)


def test_interval_comes_from_paired_replicates():
    generator = np.random.default_rng(0)
    noise = generator.normal(0, 0.01, 200)

    def with_replicates(arm, auc):
        row = ledger_row(arm, 1, auc)
        scores = {}
        for name, score in row.scores.items():
            values = score.model_dump() | {"auc_replicates": tuple(auc + noise)}
            scores[name] = ObjectiveScore(**values)
        return row.model_copy(update={"scores": scores})

    names = ("checkout_given_click", "checkout_given_view")
    gain = cumulative_gain([with_replicates("control", 0.7)], [with_replicates("candidate", 0.707)], names)
    assert gain.percent == pytest.approx(1.0)
    assert gain.low is not None and gain.high is not None
    assert 0.95 < gain.low < 1.0 < gain.high < 1.05


@pytest.mark.parametrize(("positives", "calibration"), [(1, 1000.0), (4, 30.0), (4, 1000.0), (10, 30.0), (40, 30.0)])
def test_predicting_far_too_much_is_found_on_a_thin_day(positives, calibration):
    """The noise of four positives or fewer used to swallow any calibration, as when conversion tracking breaks."""
    assert calibration_problems([ledger_row("control", 1, calibration=calibration, positives=positives)], GateConfig())


def test_predicting_far_too_little_is_found():
    assert calibration_problems([ledger_row("control", 1, calibration=0.001, positives=5)], GateConfig())


def test_calibration_without_numbers_is_a_problem():
    row = ledger_row("control", 1)
    scores = {name: score.model_copy(update={"mean_prediction": None}) for name, score in row.scores.items()}
    problems = calibration_problems([row.model_copy(update={"scores": scores})], GateConfig())
    assert len(problems) == 2 and "predictions are no numbers" in problems[0]


def test_days_of_another_recipe_are_not_counted():
    """A window never mixes recipes: it begins anew with the newest one."""
    rows = [ledger_row("control", day, 0.7) for day in (1, 2)]
    rows += [ledger_row("candidate", 1, 0.9, recipe="first"), ledger_row("candidate", 2, 0.9, recipe="second")]
    verdict = decide(rows, date(2026, 1, 2), CONFIG)
    assert [day.day for day in verdict.days] == [2]
    assert "1 of 2 days are scored by both arms" in verdict.reasons
