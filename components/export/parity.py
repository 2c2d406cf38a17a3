"""How a version's predictions differ from the checkpoint's, on real evaluation rows."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnxruntime
import torch

from components.common.errors import InputError
from components.common.objectives import OBJECTIVES
from components.common.servable import ONNX_OUTPUT
from components.evaluate.metrics import user_replicates, weighted_auc
from components.evaluate.score import predict
from components.export.config import ExportConfig
from components.train.checkpoint import TrainingState
from components.train.dataset import ExampleSet

VECTOR_INPUTS = ("categorical", "dense", "sequence", "lengths", "users")
_ROWS_AT_ONCE = 4096
_REPLICATES = 100
# With few conversions an AUC moves by chance alone: only what is beyond it counts.
_ERRORS_ALLOWED = 2.0


def compare(
    state: TrainingState, examples: ExampleSet, onnx_of_vectors: bytes, served: np.ndarray, config: ExportConfig
) -> dict[str, Any]:
    """Compare torch, its ONNX export on the same float32 vectors, and what is served from INT4 tables.

    Args:
        state: The checkpoint.
        examples: Evaluation rows.
        onnx_of_vectors: The ranker that takes float32 vectors.
        served: The version's probabilities of the rows, shape (n, objectives).
        config: The limits.

    Returns:
        The parity report; `beyond_limits` says what INT4 tables change too much.

    Raises:
        InputError: If ONNX differs from torch by more than the limit.
    """
    expected = predict(state, examples, _ROWS_AT_ONCE)
    exported = _predict_vectors(state, examples, onnx_of_vectors)
    _check_exported(np.abs(exported - expected), config)
    objectives, beyond = {}, []
    for number, objective in enumerate(OBJECTIVES):
        rows = examples.masks[:, number] > 0
        labels, users = examples.labels[rows, number].numpy(), examples.users[rows.numpy()]
        found = _compare_objective(labels, users, expected[rows, number], served[rows, number])
        if objective.served:
            beyond += _beyond_limits(objective.name, found, config)
        objectives[objective.name] = found
    return {
        "rows": len(examples),
        "max_difference": float(np.abs(exported - expected).max(initial=0)),
        "int4_max_difference": float(np.abs(served - expected).max(initial=0)),
        "objectives": objectives,
        "beyond_limits": beyond,
    }


@torch.no_grad()
def _predict_vectors(state: TrainingState, examples: ExampleSet, onnx: bytes) -> np.ndarray:
    session, parts = onnxruntime.InferenceSession(onnx, providers=["CPUExecutionProvider"]), []
    state.model.eval()
    for batch in examples.in_order(_ROWS_AT_ONCE):
        categorical, sequence, lengths = state.model.embeddings(batch.sparse)
        tensors = (categorical.contiguous(), batch.dense, sequence, lengths, torch.arange(len(lengths)))
        values = (tensor.numpy() for tensor in tensors)
        parts.append(session.run([ONNX_OUTPUT], dict(zip(VECTOR_INPUTS, values, strict=True)))[0])
    return np.concatenate(parts)


def _check_exported(difference: np.ndarray, config: ExportConfig) -> None:
    if not difference.max(initial=0) <= config.max_parity_difference:
        worst = OBJECTIVES[int(difference.max(axis=0).argmax())].name
        raise InputError(
            f"the exported ranker differs from the checkpoint by {difference.max():.2e} on {worst}, at most "
            f"{config.max_parity_difference:.0e} is allowed (export.max_parity_difference)"
        )


def _compare_objective(
    labels: np.ndarray, users: np.ndarray, expected: np.ndarray, served: np.ndarray
) -> dict[str, float | None]:
    found: dict[str, float | None] = dict.fromkeys(
        ("auc", "int4_auc", "auc_change_percent", "auc_change_error_percent")
    )
    if 0 < labels.sum() < len(labels):
        # The rows as they are, and the same bootstrap of users for both.
        weights = np.column_stack([np.ones(len(labels), dtype=np.uint8), user_replicates(users, _REPLICATES)])
        before, after = (weighted_auc(labels, values, weights) for values in (expected, served))
        changes = (after / before - 1) * 100
        found |= {"auc": float(before[0]), "int4_auc": float(after[0]), "auc_change_percent": float(changes[0])}
        found["auc_change_error_percent"] = float(np.nanstd(changes[1:]))
    ratio = float(served.mean(dtype=np.float64) / expected.mean(dtype=np.float64)) if len(labels) else None
    return found | {"mean_prediction_ratio": ratio}


def _beyond_limits(name: str, found: dict[str, float | None], config: ExportConfig) -> list[str]:
    change, error = found["auc_change_percent"], found["auc_change_error_percent"] or 0.0
    ratio, beyond = found["mean_prediction_ratio"], []
    if change is not None and abs(change) - _ERRORS_ALLOWED * error > config.max_auc_change_percent:
        beyond.append(
            f"INT4 tables change the AUC of {name} by {change:+.3f}% (standard error {error:.3f}), at most "
            f"{config.max_auc_change_percent}% is allowed (export.max_auc_change_percent)"
        )
    if ratio is not None and abs(ratio - 1) > config.max_mean_change:
        beyond.append(
            f"INT4 tables change the mean prediction of {name} to {ratio:.4f} of the checkpoint's, at most "
            f"{config.max_mean_change} is allowed (export.max_mean_change)"
        )
    return beyond
