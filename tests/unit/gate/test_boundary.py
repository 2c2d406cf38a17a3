import numpy as np
import pytest
from scipy.stats import multivariate_normal, norm

from components.gate.boundary import nominal_levels, spent


def bounds(alpha, shares, information=None):
    return [float(norm.isf(level)) for level in nominal_levels(alpha, shares, information or shares)]


@pytest.mark.parametrize(
    ("num_looks", "published"),
    [
        (2, [2.9626, 1.9686]),
        (3, [3.7103, 2.5114, 1.9930]),
        (4, [4.3326, 2.9631, 2.3590, 2.0141]),
        (5, [4.8769, 3.3569, 2.6803, 2.2898, 2.0310]),
    ],
)
def test_bounds_are_the_published_ones(num_looks, published):
    """Lan-DeMets with O'Brien and Fleming's shape, one-sided 0.025: gsDesign and ldbounds print these."""
    shares = [look / num_looks for look in range(1, num_looks + 1)]
    assert bounds(0.025, shares) == pytest.approx(published, abs=2e-4)


def test_all_that_is_spent_is_alpha():
    assert spent(0.05, 1.0) == pytest.approx(0.05)
    assert nominal_levels(0.03, [1.0], [70.0]) == pytest.approx([0.03])


def test_chance_to_cross_any_bound_is_alpha():
    """Against another integration, with information that does not come evenly."""
    shares, information = [0.25, 0.5, 0.75, 1.0], [100.0, 310.0, 390.0, 620.0]
    found = bounds(0.05, shares, information)
    roots = np.sqrt(information)
    correlation = np.minimum.outer(roots, roots) / np.maximum.outer(roots, roots)
    inside = multivariate_normal(cov=correlation, abseps=1e-7, maxpts=4_000_000, seed=0).cdf(found)
    assert 1 - inside == pytest.approx(0.05, abs=2e-5)


def test_simulated_equals_cross_as_often_as_alpha_says():
    generator = np.random.default_rng(0)
    steps = generator.normal(size=(200_000, 4)).cumsum(axis=1) / np.sqrt(np.arange(1, 5))
    crossed = (steps > bounds(0.05, [0.25, 0.5, 0.75, 1.0])).any(axis=1).mean()
    assert crossed == pytest.approx(0.05, abs=4 * np.sqrt(0.05 * 0.95 / 200_000))


def test_look_without_new_positives_takes_next_to_nothing():
    levels = nominal_levels(0.05, [0.5, 0.75, 1.0], [100.0, 100.0, 300.0])
    assert all(0 <= level < 0.05 for level in levels) and levels[2] > levels[0]
