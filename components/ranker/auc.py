"""Area under the ROC curve, and its bootstrap over users."""

from __future__ import annotations

import numpy as np

from components.features.hashing import splitmix64, uniform_from_hash

_POISSON_CUMULATIVE = np.cumsum(np.exp(-1.0) / np.array([1, 1, 2, 6, 24, 120, 720, 5040], dtype=np.float64))


def weighted_auc(labels: np.ndarray, predictions: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Area under the ROC curve for many weightings at once; tied predictions count half.

    AUC = sum over pairs (positive i, negative j) of w_i w_j [p_i > p_j] + w_i w_j [p_i = p_j] / 2, over all pairs.

    Args:
        labels: 0 or 1, shape (n,).
        predictions: Shape (n,).
        weights: Row weights, shape (n, k).

    Returns:
        float64, shape (k,); NaN where the weights leave only one class.
    """
    order = np.argsort(predictions, kind="stable")
    starts = np.flatnonzero(np.diff(predictions[order], prepend=-np.inf))
    weights = weights[order].astype(np.float64)
    is_positive = labels[order].astype(bool)[:, None]
    positive = np.add.reduceat(weights * is_positive, starts, axis=0)
    negative = np.add.reduceat(weights * ~is_positive, starts, axis=0)
    below = np.cumsum(negative, axis=0) - negative
    pairs = positive.sum(axis=0) * negative.sum(axis=0)
    with np.errstate(invalid="ignore"):
        return np.asarray((positive * (below + negative / 2)).sum(axis=0) / pairs)


def user_replicates(users: np.ndarray, num_replicates: int) -> np.ndarray:
    """Poisson(1) weights of a bootstrap over users.

    The weight of a user in a replicate is a hash of both, so it is the same in every arm and on every day: differences
    between arms are paired, and days of one user are resampled together.

    Args:
        users: Hashed users, int64, shape (n,).
        num_replicates: k.

    Returns:
        uint8, shape (n, k).
    """
    distinct, inverse = np.unique(users, return_inverse=True)
    replicates = splitmix64(np.arange(num_replicates))
    drawn = uniform_from_hash(splitmix64(splitmix64(distinct)[:, None] ^ replicates[None, :]))
    return np.searchsorted(_POISSON_CUMULATIVE, drawn, side="right").astype(np.uint8)[inverse]
