"""How predictions of one objective did: areas under curves, losses, calibration; overall, by user and by slice."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from sklearn.metrics import average_precision_score, log_loss

from components.common.ledger import Decile, ObjectiveScore, SliceScore
from components.ranker.auc import RankedRows, grouped_auc

_NUM_DECILES = 10


def score_objective(
    labels: np.ndarray,
    predictions: np.ndarray,
    users: np.ndarray,
    num_replicates: int,
    slices: Mapping[str, np.ndarray] | None = None,
) -> ObjectiveScore:
    """Judge one objective's predictions on the rows that take part in it.

    Predictions that are no finite numbers leave everything undefined: no rule takes that for a good score.

    Args:
        labels: 0 or 1, shape (n,).
        predictions: Probabilities, shape (n,).
        users: Hashed users, shape (n,).
        num_replicates: Bootstrap replicates of the AUC; 0 for none.
        slices: Which rows each slice has, bool, shape (n,) each; None leaves out slices and deciles.
    """
    rows, positives = len(labels), int(labels.sum())
    predictions = np.asarray(predictions, dtype=np.float64)
    num_not_finite = int(np.count_nonzero(~np.isfinite(predictions)))
    known = bool(rows) and not num_not_finite
    has_both = known and 0 < positives < rows
    ranked = RankedRows(labels, predictions) if has_both else None
    replicates: tuple[float, ...] = ()
    if ranked is not None and num_replicates:
        aucs = ranked.bootstrap(users, num_replicates)
        replicates = tuple(np.where(np.isnan(aucs), 0.5, aucs).round(6).tolist())
    loss = float(log_loss(labels, predictions.clip(1e-7, 1 - 1e-7), labels=[0, 1])) if known else None
    return ObjectiveScore(
        rows=rows,
        positives=positives,
        auc=_auc(ranked, rows),
        pr_auc=float(average_precision_score(labels, predictions)) if has_both else None,
        log_loss=loss,
        mean_prediction=float(predictions.mean()) if known else None,
        calibration=_calibration(labels, predictions) if known else None,
        grouped_auc=grouped_auc(users, labels, predictions) if has_both else None,
        normalized_entropy=loss / _entropy(positives / rows) if has_both and loss is not None else None,
        deciles=_deciles(labels, predictions) if known and slices is not None else (),
        slices={name: _slice(labels[mask], predictions[mask]) for name, mask in (slices or {}).items()}
        if known
        else {},
        num_not_finite=num_not_finite,
        auc_replicates=replicates,
    )


def _auc(ranked: RankedRows | None, rows: int) -> float | None:
    return float(ranked.auc(np.ones((rows, 1)))[0]) if ranked is not None else None


def _calibration(labels: np.ndarray, predictions: np.ndarray) -> float | None:
    return float(predictions.mean() / labels.mean()) if labels.any() else None


def _entropy(share: float) -> float:
    """Loss, in nats, of predicting the share of positives for every row."""
    return float(-share * np.log(share) - (1 - share) * np.log1p(-share))


def _deciles(labels: np.ndarray, predictions: np.ndarray) -> tuple[Decile, ...]:
    """Tenths of the rows in order of their predictions; fewer if there are fewer rows."""
    parts = np.array_split(np.argsort(predictions, kind="stable"), _NUM_DECILES)
    return tuple(
        Decile(
            rows=len(part), positives=int(labels[part].sum()), mean_prediction=round(float(predictions[part].mean()), 8)
        )
        for part in parts
        if len(part)
    )


def _slice(labels: np.ndarray, predictions: np.ndarray) -> SliceScore:
    rows, positives = len(labels), int(labels.sum())
    ranked = RankedRows(labels, predictions) if 0 < positives < rows else None
    calibration = _calibration(labels, predictions) if rows else None
    return SliceScore(rows=rows, positives=positives, auc=_auc(ranked, rows), calibration=calibration)
