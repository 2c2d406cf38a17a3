import pytest

from components.gate.calibration import calibration_problems
from components.gate.config import GateConfig
from tests.unit.gate.rows import ledger_row


def problems(config=GateConfig(), **score):  # noqa: B008
    return calibration_problems([ledger_row("baseline", 1, **score)], config)


def test_days_without_positives_count_in_the_pool():
    idle = ledger_row("baseline", 2, None, positives=0)
    scores = {name: score.model_copy(update={"mean_prediction": 0.5}) for name, score in idle.scores.items()}
    rows = [ledger_row("baseline", 1), idle.model_copy(update={"scores": scores})]
    assert calibration_problems(rows, GateConfig())


def test_calibration_is_judged_against_its_noise():
    assert not problems(calibration=1.7, positives=31)
    assert problems(calibration=1.7, positives=1000)
    assert problems(calibration=0.5, positives=1000)


@pytest.mark.parametrize(("positives", "calibration"), [(1, 1000.0), (4, 30.0), (4, 1000.0), (10, 30.0), (40, 30.0)])
def test_predicting_far_too_much_is_found_on_a_thin_day(positives, calibration):
    """The noise of four positives or fewer used to swallow any calibration, as when conversion tracking breaks."""
    assert problems(calibration=calibration, positives=positives)


def test_predicting_far_too_little_is_found():
    assert problems(calibration=0.001, positives=5)


def test_calibration_without_numbers_is_a_problem():
    row = ledger_row("baseline", 1)
    scores = {name: score.model_copy(update={"mean_prediction": None}) for name, score in row.scores.items()}
    found = calibration_problems([row.model_copy(update={"scores": scores})], GateConfig())
    assert len(found) == 2 and "predictions are no numbers" in found[0]
