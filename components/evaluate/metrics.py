"""AUC with bootstrap replicates, calibration and losses."""

from __future__ import annotations

import numpy as np
from sklearn.metrics import average_precision_score, log_loss

from components.common.hashing import splitmix64, uniform_from_hash
from components.common.ledger import ObjectiveScore

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


def score_objective(
    labels: np.ndarray, predictions: np.ndarray, users: np.ndarray, num_replicates: int
) -> ObjectiveScore:
    """Judge one objective's predictions on the rows that take part in it.

    Args:
        labels: 0 or 1, shape (n,).
        predictions: Probabilities, shape (n,).
        users: Hashed users, shape (n,).
        num_replicates: Bootstrap replicates of the AUC; 0 for none.
    """
    rows, positives = len(labels), int(labels.sum())
    predictions = np.asarray(predictions, dtype=np.float64)
    defined = 0 < positives < rows
    replicates: tuple[float, ...] = ()
    if defined and num_replicates:
        found = weighted_auc(labels, predictions, user_replicates(users, num_replicates))
        replicates = tuple(np.where(np.isnan(found), 0.5, found).round(6).tolist())
    return ObjectiveScore(
        rows=rows,
        positives=positives,
        auc=float(weighted_auc(labels, predictions, np.ones((rows, 1)))[0]) if defined else None,
        pr_auc=float(average_precision_score(labels, predictions)) if defined else None,
        log_loss=float(log_loss(labels, predictions.clip(1e-7, 1 - 1e-7), labels=[0, 1])) if rows else 0.0,
        mean_prediction=float(predictions.mean()) if rows else 0.0,
        calibration=float(predictions.mean() / labels.mean()) if positives else None,
        auc_replicates=replicates,
    )
