"""The gain of one arm over another, and how well it is known: over users, and over random starts."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from scipy.stats import norm, t

from components.common.ledger import LedgerRow
from components.common.trials import Gain

_INTERVAL = 0.975
# One day of an arm: the rows of all its starts.
Starts = Sequence[LedgerRow]


@dataclass(frozen=True)
class Estimate:
    """A cumulative AUC gain and what its error is made of.

    Attributes:
        percent: The gain, the arms' AUCs being means over their starts.
        user_sd: Its standard deviation over users, in percent, by the paired bootstrap; None without replicates.
        start_sd: Standard deviation of one start's cumulative AUC, in percent of it; None if nothing tells it.
        start_degrees: Degrees of freedom that it was estimated with; infinite if it is given.
        num_starts: Of the candidate, and of the control.
    """

    percent: float
    user_sd: float | None
    start_sd: float | None
    start_degrees: float
    num_starts: tuple[int, int]

    @property
    def start_variance(self) -> float | None:
        """Of the gain, by random starts: those of an arm share their mean's variance."""
        return None if self.start_sd is None else self.start_sd**2 * sum(1 / number for number in self.num_starts)

    @property
    def standard_error(self) -> float | None:
        """By users and random starts; None if one of the two is not known, or both are 0."""
        if self.user_sd is None or self.start_variance is None:
            return None
        return math.sqrt(self.user_sd**2 + self.start_variance) or None

    @property
    def degrees(self) -> float:
        """Degrees of freedom of the standard error (Satterthwaite 1946); those of the users are many."""
        error, starts = self.standard_error, self.start_variance
        if not error or not starts or math.isinf(self.start_degrees):
            return math.inf
        return self.start_degrees * (error**2 / starts) ** 2

    def after(self, growth: float) -> Estimate:
        """What is to be expected after so many times the days: users tell more by then, random starts do not."""
        return self if self.user_sd is None else replace(self, user_sd=self.user_sd / math.sqrt(growth))

    def quantile(self, level: float) -> float:
        """The number of standard errors that an equal recipe exceeds with a chance of `level`."""
        return float(norm.isf(level) if math.isinf(self.degrees) else t.isf(level, self.degrees))

    def p_value(self, sign: int = 1) -> float | None:
        """The chance of such a gain or more between equal recipes; of such a loss or more with `sign` -1."""
        error = self.standard_error
        if error is None:
            return None
        ratio = sign * self.percent / error
        return float(norm.sf(ratio) if math.isinf(self.degrees) else t.sf(ratio, self.degrees))

    @property
    def gain(self) -> Gain:
        """With its 95% interval: by users alone where random starts are not known."""
        error = self.standard_error or self.user_sd
        if error is None:
            return Gain(percent=self.percent, low=None, high=None)
        half = self.quantile(1 - _INTERVAL) * error
        return Gain(percent=self.percent, low=self.percent - half, high=self.percent + half)


def estimate_gain(
    candidate: Sequence[Starts], control: Sequence[Starts], objectives: tuple[str, ...], start_sd: float | None = None
) -> Estimate:
    """The gain over some days, on which every AUC is known.

    gain = (sum_d AUC_candidate[d] / sum_d AUC_control[d] - 1) * 100, over the objectives as well (Qiu et al. 2025,
    section 4.4).

    Args:
        candidate: By day.
        control: On the same days.
        objectives: Which.
        start_sd: Standard deviation over random starts in percent, if no arm has several.
    """
    ours, theirs = _sums(candidate, objectives), _sums(control, objectives)
    percent = float(ours.mean() / theirs.mean() - 1) * 100
    drawn_ours, drawn_theirs = _replicate_sums(candidate, objectives), _replicate_sums(control, objectives)
    user_sd = None
    if drawn_ours is not None and drawn_theirs is not None and len(drawn_ours) == len(drawn_theirs) > 1:
        user_sd = float(np.std((drawn_ours / drawn_theirs - 1) * 100, ddof=1))
    degrees = float(len(ours) + len(theirs) - 2)
    if degrees:
        squares = sum(float(((sums / sums.mean() - 1) ** 2).sum()) for sums in (ours, theirs))
        start_sd = 100 * math.sqrt(squares / degrees)
    else:
        degrees = math.inf
    return Estimate(percent, user_sd, start_sd, degrees, (len(ours), len(theirs)))


def _sums(days: Sequence[Starts], objectives: tuple[str, ...]) -> np.ndarray:
    """AUC of each start, summed over days and objectives, shape (starts,)."""
    return np.array(
        [sum(row.scores[name].auc or 0.0 for row in rows for name in objectives) for rows in zip(*days, strict=True)]
    )


def _replicate_sums(days: Sequence[Starts], objectives: tuple[str, ...]) -> np.ndarray | None:
    """The same under each replicate of the users, mean over the starts, shape (replicates,); None if there are none."""
    drawn = [row.scores[name].auc_replicates for starts in days for row in starts for name in objectives]
    if not drawn or not drawn[0] or len({len(replicates) for replicates in drawn}) > 1:
        return None
    return np.asarray(np.sum(drawn, axis=0) / len(days[0]))
