"""How a version's predictions differ from the checkpoint's, on real evaluation rows."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import torch
from torch import nn

from components.common.errors import InputError
from components.export.config import ExportConfig
from components.features.objectives import OBJECTIVES
from components.features.vectors import KnownVectors
from components.ranker.auc import RankedRows, UserReplicates, weighted_auc
from components.ranker.checkpoint import TrainedRanker
from components.ranker.dataset import ExampleSet, tensors_of
from components.version.parity import ObjectiveParity, TableBytes, TableParity
from components.version.predictor import Predictor

_ROWS_AT_ONCE = 4096
_REPLICATES = 100
# With few conversions an AUC by labels moves by chance alone: there, only what is beyond it counts.
_ERRORS_ALLOWED = 2.0


class Withheld(InputError):
    """A version that does not predict what its checkpoint predicts."""


@dataclass(frozen=True)
class Reference:
    """What a checkpoint predicts of evaluation rows.

    Attributes:
        table: The rows.
        examples: The rows as the model takes them.
        probabilities: By torch, shape (n, objectives).
    """

    table: pa.Table
    examples: ExampleSet
    probabilities: np.ndarray

    @classmethod
    def of(cls, ranker: TrainedRanker, table: pa.Table, vectors: KnownVectors | None = None) -> Reference:
        """Predict the rows by torch, with these pretrained vectors.

        Raises:
            Withheld: If there are fewer than two rows.
        """
        if len(table) < 2:
            raise Withheld(f"parity takes two evaluation rows at least, there are {len(table)}; export a later day")
        examples = tensors_of(table, ranker.features, True, ranker.indexes, vectors)
        return cls(table, examples, ranker.predict(examples, _ROWS_AT_ONCE))

    def compare(self, served: np.ndarray, table_bytes: TableBytes) -> TableParity:
        """How what is served from packed tables, shape (n, objectives), differs."""
        objectives = {}
        for number, objective in enumerate(OBJECTIVES):
            rows = self.examples.masks[:, number] > 0
            labels, users = self.examples.labels[rows, number].numpy(), self.examples.users[rows.numpy()]
            expected = self.probabilities[rows, number]
            objectives[objective.name] = _compare_objective(labels, users, expected, served[rows, number])
        difference = np.abs(served - self.probabilities).max(initial=0)
        return TableParity(int4_max_difference=float(difference), objectives=objectives, table_bytes=table_bytes)


def beyond_limits(objectives: dict[str, ObjectiveParity], config: ExportConfig) -> list[str]:
    """What packed tables change too much of the served objectives."""
    return [text for name in config.served for text in _beyond_limits(name, objectives[name], config)]


@torch.no_grad()
def predict_both(ranker: nn.Module, predictor: Predictor, table: pa.Table) -> tuple[np.ndarray, np.ndarray]:
    """Probabilities by torch and by ONNX of the same packed rows, shape (n, objectives) each."""
    by_torch, by_onnx = [], []
    for start in range(0, len(table), _ROWS_AT_ONCE):
        inputs = predictor.inputs(table.slice(start, _ROWS_AT_ONCE))
        by_torch.append(ranker.eval()(*map(torch.from_numpy, inputs)).numpy())
        by_onnx.append(predictor.run(inputs))
    return np.concatenate(by_torch), np.concatenate(by_onnx)


def check_exported(difference: np.ndarray, config: ExportConfig) -> None:
    """Check how ONNX differs from torch, shape (n, objectives).

    Raises:
        Withheld: If it is by more than the limit.
    """
    if not difference.max(initial=0) <= config.max_parity_difference:
        worst = OBJECTIVES[int(difference.max(axis=0).argmax())].name
        raise Withheld(
            f"the exported ranker differs from the checkpoint by {difference.max():.2e} on {worst}, at most "
            f"{config.max_parity_difference:.0e} is allowed (export.max_parity_difference)"
        )


def _compare_objective(
    labels: np.ndarray, users: np.ndarray, expected: np.ndarray, served: np.ndarray
) -> ObjectiveParity:
    if not len(labels) or not np.isfinite(served).all():
        return ObjectiveParity()
    ratio = float(served.mean(dtype=np.float64) / expected.mean(dtype=np.float64))
    before, after = (_expected_auc(expected, values) for values in (expected, served))
    by_expectation = ObjectiveParity(
        mean_prediction_ratio=ratio, expected_auc_change_percent=(after / before - 1) * 100
    )
    if not 0 < labels.sum() < len(labels):
        return by_expectation
    # The rows as they are, and the same bootstrap of users for both.
    replicates = UserReplicates(users).weights(range(_REPLICATES))
    weights = np.column_stack([np.ones(len(labels), dtype=np.uint8), replicates])
    by_labels = [RankedRows(labels, values).auc(weights) for values in (expected, served)]
    changes = (by_labels[1] / by_labels[0] - 1) * 100
    return by_expectation.model_copy(
        update={
            "auc": float(by_labels[0][0]),
            "int4_auc": float(by_labels[1][0]),
            "auc_change_percent": float(changes[0]),
            "auc_change_error_percent": float(np.nanstd(changes[1:])),
        }
    )


def _expected_auc(probabilities: np.ndarray, predictions: np.ndarray) -> float:
    """The AUC that predictions have if labels come with these probabilities.

    Every row counts as a positive with its probability and as a negative with the rest, so no label's chance is in it.
    """
    positive = np.repeat([1, 0], len(probabilities))
    weights = np.concatenate([probabilities, 1 - probabilities.astype(np.float64)])[:, None]
    return float(weighted_auc(positive, np.tile(predictions, 2), weights)[0])


def _beyond_limits(name: str, parity: ObjectiveParity, config: ExportConfig) -> list[str]:
    """What packed tables change too much; what cannot be told counts as too much."""
    expected, change, error = (
        parity.expected_auc_change_percent,
        parity.auc_change_percent,
        parity.auc_change_error_percent,
    )
    ratio, limit, beyond = parity.mean_prediction_ratio, config.max_auc_change_percent, []
    if change is None or error is None or expected is None or ratio is None:
        return [f"{name} cannot be compared: its evaluation rows are of one class, or predictions are no numbers"]
    if not abs(expected) <= limit:
        beyond.append(
            f"INT4 tables change the AUC of {name} by {expected:+.3f}% where labels follow the checkpoint, at most "
            f"{limit}% is allowed (export.max_auc_change_percent)"
        )
    if not abs(change) - _ERRORS_ALLOWED * error <= limit:
        beyond.append(
            f"INT4 tables change the AUC of {name} by {change:+.3f}% (standard error {error:.3f}), at most "
            f"{limit}% is allowed (export.max_auc_change_percent)"
        )
    if not abs(ratio - 1) <= config.max_mean_change:
        beyond.append(
            f"INT4 tables change the mean prediction of {name} by {100 * (ratio - 1):+.2f}%, at most "
            f"{100 * config.max_mean_change:g}% is allowed (export.max_mean_change: {config.max_mean_change})"
        )
    return beyond
