"""The group-sequential boundary: what each look at a trial may spend of its error rate.

With a look every week and the level of a single test at each, equal recipes would pass far more often than the level
says. Lan and DeMets (1983) spend the error rate as the trial goes on: what the looks may find so far, over equal
recipes, adds up to alpha(t) at the share t of the trial. With O'Brien and Fleming's shape,

    alpha(t) = 2 - 2 Phi(z_{alpha / 2} / sqrt(t)),

early looks take next to nothing, and the last one is left almost all. The chances come from the recursive integration
of Armitage, McPherson and Rowe (1969), by the package gsdesign.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from gsdesign import h1, hupdate
from scipy.optimize import brentq
from scipy.stats import norm

# Of the integration: bounds are right to four decimals, as published tables have them.
_GRID = 72
# Standard errors that no boundary is beyond: what it would spend is nothing.
_FURTHEST = 37.0
_LEAST_INCREASE = 1e-6


def spent(alpha: float, share: float) -> float:
    """What may be spent until a share of the trial, in (0, 1], of a one-sided error rate."""
    return float(2 * norm.sf(norm.isf(alpha / 2) / np.sqrt(share)))


def nominal_levels(alpha: float, shares: Sequence[float], information: Sequence[float]) -> list[float]:
    """The one-sided level of a single test at each look, such that all of them together spend `alpha`.

    Args:
        alpha: One-sided error rate of the whole trial.
        shares: The part of the trial that is over at each look, increasing, in (0, 1].
        information: What is known at each look, in any unit, such as positives: the correlation of looks i < j is
            sqrt(information_i / information_j).

    Returns:
        A level for each look.
    """
    levels: list[float] = []
    before, reached, grid = 0.0, 0.0, None
    for share, given in zip(shares, information, strict=True):
        known = max(given, reached * (1 + _LEAST_INCREASE))
        target = spent(alpha, share) - before
        if grid is None:
            bound = float(norm.isf(target))
            grid = h1(r=_GRID, info=known, b=bound)
        else:
            past, last = grid, reached

            def crossing(bound: float) -> float:
                """The chance to come beyond a bound at this look, having come beyond none before."""
                tail = hupdate(_GRID, 0.0, known, bound, np.inf, 0.0, last, past)  # noqa: B023
                return float(tail[2].sum()) - target  # noqa: B023

            bound = brentq(crossing, -_FURTHEST, _FURTHEST, xtol=1e-10) if crossing(_FURTHEST) < 0 else _FURTHEST
            grid = hupdate(_GRID, 0.0, known, -np.inf, bound, 0.0, last, past)
        before, reached = spent(alpha, share), known
        levels.append(float(norm.sf(bound)))
    return levels
