"""How predictions of one objective did: AUC with its bootstrap replicates, calibration, losses."""

from __future__ import annotations

import numpy as np
from sklearn.metrics import average_precision_score, log_loss

from components.common.ledger import ObjectiveScore
from components.ranker.auc import user_replicates, weighted_auc


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
        aucs = weighted_auc(labels, predictions, user_replicates(users, num_replicates))
        replicates = tuple(np.where(np.isnan(aucs), 0.5, aucs).round(6).tolist())
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
