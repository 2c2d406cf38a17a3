"""Area under the ROC curve, and its bootstrap over users."""

from __future__ import annotations

import numpy as np
from scipy import sparse

from components.features.hashing import splitmix64, uniform_from_hash

_POISSON_CUMULATIVE = np.cumsum(np.exp(-1.0) / np.array([1, 1, 2, 6, 24, 120, 720, 5040], dtype=np.float64))


# Weights of a block of replicates: rows times replicates, whatever the number of rows.
_CELLS_AT_ONCE = 4_000_000


class RankedRows:
    """Labelled rows in the order of their predictions, for areas under many weightings of them."""

    def __init__(self, labels: np.ndarray, predictions: np.ndarray) -> None:
        """Sort n rows.

        Args:
            labels: 0 or 1, shape (n,).
            predictions: Shape (n,).

        Raises:
            ValueError: If a prediction is no finite number: it has no rank.
        """
        if not np.isfinite(predictions).all():
            raise ValueError(f"{np.count_nonzero(~np.isfinite(predictions))} predictions are not finite")
        order = np.argsort(predictions, kind="stable")
        is_positive = labels[order].astype(bool)
        ties = np.cumsum(np.diff(predictions[order], prepend=-np.inf) > 0)
        with_positives = np.unique(ties[is_positive])
        # Only ties with positives have to be told apart: 2 i is what lies below the i-th of them, 2 i + 1 is in it.
        place = np.searchsorted(with_positives, ties) + np.searchsorted(with_positives, ties, side="right")
        shape = (2 * len(with_positives) + 1, len(order))
        self._negative, self._positive = (
            sparse.csr_matrix((np.ones(rows.sum()), (place[rows], order[rows])), shape)
            for rows in (~is_positive, is_positive)
        )

    def auc(self, weights: np.ndarray) -> np.ndarray:
        """Area under the ROC curve for many weightings at once; tied predictions count half.

        AUC = sum over pairs (positive i, negative j) of w_i w_j [p_i > p_j] + w_i w_j [p_i = p_j] / 2, over all pairs.

        Args:
            weights: Row weights, shape (n, k).

        Returns:
            float64, shape (k,); NaN where the weights leave only one class.
        """
        weights = weights.astype(np.float64)
        positive, negative = self._positive @ weights, self._negative @ weights
        below = np.cumsum(negative, axis=0) - negative
        pairs = positive.sum(axis=0) * negative.sum(axis=0)
        with np.errstate(invalid="ignore"):
            return np.asarray((positive * (below + negative / 2)).sum(axis=0) / pairs)

    def bootstrap(self, users: np.ndarray, num_replicates: int) -> np.ndarray:
        """AUC under each replicate of a bootstrap over users, float64, shape (k,).

        Replicates are drawn a block at a time, so memory follows the rows alone.

        Args:
            users: Hashed users, int64, shape (n,).
            num_replicates: k.
        """
        replicates = UserReplicates(users)
        size = max(1, _CELLS_AT_ONCE // max(len(users), 1))
        blocks = [range(start, min(start + size, num_replicates)) for start in range(0, num_replicates, size)]
        return np.concatenate([np.zeros(0), *(self.auc(replicates.weights(block)) for block in blocks)])


class UserReplicates:
    """Poisson(1) weights of a bootstrap over users.

    The weight of a user in a replicate is a hash of both, so it is the same in every arm and on every day: differences
    between arms are paired, and days of one user are resampled together.
    """

    def __init__(self, users: np.ndarray) -> None:
        """Resample hashed users, int64, shape (n,)."""
        distinct, self._user_of = np.unique(users, return_inverse=True)
        self._hashes = splitmix64(distinct)

    def weights(self, replicates: range) -> np.ndarray:
        """The weights of some replicates by number, uint8, shape (n, k)."""
        numbers = splitmix64(np.arange(replicates.start, replicates.stop))
        weights = np.empty((len(self._hashes), len(numbers)), dtype=np.uint8)
        for column, number in enumerate(numbers):
            drawn = uniform_from_hash(splitmix64(self._hashes ^ number))
            weights[:, column] = np.searchsorted(_POISSON_CUMULATIVE, drawn, side="right")
        return weights[self._user_of]


def weighted_auc(labels: np.ndarray, predictions: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """`RankedRows.auc` of rows that are ranked once."""
    return RankedRows(labels, predictions).auc(weights)


def grouped_auc(groups: np.ndarray, labels: np.ndarray, predictions: np.ndarray) -> float | None:
    """Mean of the AUCs within groups, such as users, weighted by their rows (Zhu et al. 2017, equation 1).

    Groups of one class have no AUC, and are left out; tied predictions count half.

    Args:
        groups: Which group each row is of, int64, shape (n,).
        labels: 0 or 1, shape (n,).
        predictions: Finite, shape (n,).

    Returns:
        None if every group has one class.
    """
    order = np.lexsort((predictions, groups))
    groups, positive, predictions = groups[order], labels[order].astype(np.float64), predictions[order]
    is_start = np.diff(groups, prepend=groups[:1]) != 0
    is_start[:1] = True
    starts = np.flatnonzero(is_start)
    sizes = np.diff(starts, append=len(groups))
    tie_starts = np.flatnonzero(is_start | (np.diff(predictions, prepend=np.nan) != 0))
    tie_sizes = np.diff(tie_starts, append=len(groups))
    # Ranks within the group, from 1; tied rows share the mean of theirs.
    ranks = np.repeat(tie_starts + (tie_sizes + 1) / 2, tie_sizes) - np.repeat(starts, sizes)
    positives = np.add.reduceat(positive, starts)
    pairs = positives * (sizes - positives)
    has_both = pairs > 0
    if not has_both.any():
        return None
    above = np.add.reduceat(ranks * positive, starts) - positives * (positives + 1) / 2
    return float(np.average(above[has_both] / pairs[has_both], weights=sizes[has_both]))
