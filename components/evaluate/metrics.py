"""How predictions of one objective did: AUC with its bootstrap replicates, calibration, losses."""

from __future__ import annotations

import numpy as np
from sklearn.metrics import average_precision_score, log_loss

from components.common.ledger import ObjectiveScore
from components.ranker.auc import RankedRows


def score_objective(
    labels: np.ndarray, predictions: np.ndarray, users: np.ndarray, num_replicates: int
) -> ObjectiveScore:
    """Judge one objective's predictions on the rows that take part in it.

    Predictions that are no finite numbers leave everything undefined: no rule takes that for a good score.

    Args:
        labels: 0 or 1, shape (n,).
        predictions: Probabilities, shape (n,).
        users: Hashed users, shape (n,).
        num_replicates: Bootstrap replicates of the AUC; 0 for none.
    """
    rows, positives = len(labels), int(labels.sum())
    predictions = np.asarray(predictions, dtype=np.float64)
    num_not_finite = int(np.count_nonzero(~np.isfinite(predictions)))
    known = bool(rows) and not num_not_finite
    ranked = RankedRows(labels, predictions) if known and 0 < positives < rows else None
    replicates: tuple[float, ...] = ()
    if ranked is not None and num_replicates:
        aucs = ranked.bootstrap(users, num_replicates)
        replicates = tuple(np.where(np.isnan(aucs), 0.5, aucs).round(6).tolist())
    return ObjectiveScore(
        rows=rows,
        positives=positives,
        auc=float(ranked.auc(np.ones((rows, 1)))[0]) if ranked is not None else None,
        pr_auc=float(average_precision_score(labels, predictions)) if ranked is not None else None,
        log_loss=float(log_loss(labels, predictions.clip(1e-7, 1 - 1e-7), labels=[0, 1])) if known else None,
        mean_prediction=float(predictions.mean()) if known else None,
        calibration=float(predictions.mean() / labels.mean()) if known and positives else None,
        num_not_finite=num_not_finite,
        auc_replicates=replicates,
    )
