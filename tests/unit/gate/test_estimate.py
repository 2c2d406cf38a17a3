import math

import numpy as np
import pytest
from scipy.stats import norm, t

from components.features.objectives import DEFAULT_SERVED
from components.gate.estimate import Estimate, estimate_gain
from tests.unit.gate.rows import ledger_row

NOISE = np.random.default_rng(0).normal(0, 0.01, 400)


def days(arm: str, aucs_by_day: list[list[float]], replicates: bool = True):
    """By day, the rows of an arm's starts."""
    return [
        [
            ledger_row(f"{arm}.{number}", day, auc, replicates=tuple(auc + NOISE) if replicates else ())
            for number, auc in enumerate(aucs)
        ]
        for day, aucs in enumerate(aucs_by_day, start=1)
    ]


def estimate(candidate, control, start_sd=None):
    return estimate_gain(days("a", candidate), days("b", control), DEFAULT_SERVED, start_sd)


def test_gain_is_that_of_the_sums():
    assert estimate([[0.71], [0.80]], [[0.70], [0.80]]).percent == pytest.approx((1.51 / 1.50 - 1) * 100)


def test_gain_is_that_of_means_over_starts():
    assert estimate([[0.70, 0.72]], [[0.70, 0.70, 0.70]]).percent == pytest.approx((0.71 / 0.70 - 1) * 100)


def test_users_are_paired_between_the_arms():
    """Both arms have the same noise: of their ratio little is left."""
    found = estimate([[0.707]], [[0.70]], start_sd=0.0)
    assert found.user_sd == pytest.approx(100 * 0.007 * 0.01 / 0.7**2, rel=0.1)
    assert found.gain.low is not None and found.gain.high is not None
    assert 0.95 < found.gain.low < 1.0 < found.gain.high < 1.05


def test_starts_tell_their_own_error():
    """Pooled over both arms: deviations of 0.01 and 0.02 from means of 0.7, with two degrees of freedom."""
    found = estimate([[0.69, 0.71]], [[0.68, 0.72]])
    pooled = 100 * math.sqrt((2 * 0.01**2 + 2 * 0.02**2) / 0.7**2 / 2)
    assert found.start_sd == pytest.approx(pooled) and found.start_degrees == 2
    assert found.start_variance == pytest.approx(pooled**2)


def test_single_starts_tell_nothing_unless_it_is_given():
    assert estimate([[0.71]], [[0.7]]).standard_error is None
    assert estimate([[0.71]], [[0.7]]).p_value() is None
    given = estimate([[0.71]], [[0.7]], start_sd=0.5)
    assert given.start_variance == pytest.approx(0.5) and math.isinf(given.degrees)


def test_without_replicates_of_users_nothing_is_sure():
    found = estimate_gain(days("a", [[0.9, 0.9]], False), days("b", [[0.7, 0.7]], False), DEFAULT_SERVED)
    assert found.p_value() is None and found.gain.low is None


def test_equal_scores_are_no_proof():
    found = estimate_gain(days("a", [[0.7, 0.7]]), days("b", [[0.7, 0.7]]), DEFAULT_SERVED)
    assert found.standard_error is None and found.p_value() is None


def test_p_value_and_quantile_agree():
    found = Estimate(percent=1.0, user_sd=0.3, start_sd=0.4, start_degrees=2.0, num_starts=(2, 2))
    assert found.standard_error == pytest.approx(0.5)
    assert found.degrees == pytest.approx(2 * (0.25 / 0.16) ** 2)
    assert found.p_value() == pytest.approx(t.sf(2.0, found.degrees))
    assert found.quantile(found.p_value()) == pytest.approx(2.0)
    assert found.p_value(-1) == pytest.approx(1 - found.p_value())
    many = Estimate(percent=1.0, user_sd=0.3, start_sd=0.4, start_degrees=math.inf, num_starts=(2, 2))
    assert many.p_value() == pytest.approx(norm.sf(2.0))


def test_days_help_against_users_and_not_against_starts():
    found = Estimate(percent=1.0, user_sd=0.6, start_sd=0.4, start_degrees=4.0, num_starts=(2, 2)).after(4.0)
    assert found.user_sd == pytest.approx(0.3) and found.start_sd == 0.4
