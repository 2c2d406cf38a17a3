"""The yardstick: a logistic regression on the same features."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import torch
from scipy import sparse
from sklearn.linear_model import LogisticRegression
from torch import Tensor

from components.features.feature_list import FeatureConfig
from components.features.objectives import OBJECTIVE_NAMES, OBJECTIVES, negative_rate
from components.ranker.dataset import ExampleSet
from components.ranker.feature_processing import DenseNormalizer, Moments


class Yardstick:
    """One L2-regularised logistic regression per served objective.

    Each sees what the ranker sees: every id one-hot, the ids of the sequence as a bag, the dense features normalised as
    the ranker normalises them, and pretrained vectors, standardised.
    """

    def __init__(
        self, training: Iterable[ExampleSet], negative_keep_rate: float, c: float, served: tuple[str, ...]
    ) -> None:
        """Fit.

        Args:
            training: Examples in parts, such as days, of which only one at a time has to be in memory as a whole.
            negative_keep_rate: Of these.
            c: The inverse of the L2 strength.
            served: The objectives to be predicted.
        """
        parts = [_Part.of(examples) for examples in training]
        self._normalize = DenseNormalizer(parts[0].features)
        self._normalize.fit(Moments.of(*(part.dense for part in parts)))
        vectors = torch.cat([part.vectors for part in parts])
        self._mean = vectors.mean(dim=0)
        self._deviation = (vectors - self._mean).square().mean(dim=0).sqrt().clamp(min=1e-6)
        # Columns that no training example has would only take memory: of millions of codes, few are seen.
        is_seen = np.zeros(parts[0].ids.shape[1], dtype=bool)
        for part in parts:
            is_seen[part.ids.indices] = True
        self._seen = np.flatnonzero(is_seen)
        rows = sparse.vstack([self._matrix(part) for part in parts], format="csr")
        labels, masks = (torch.cat(columns).numpy() for columns in zip(*(p.targets for p in parts), strict=True))
        self._fitted: dict[int, LogisticRegression] = {}
        self._offsets: dict[int, float] = {}
        for number, objective in enumerate(OBJECTIVES):
            of_objective, mask = labels[:, number], masks[:, number] > 0
            if objective.name in served and 0 < of_objective[mask].sum() < mask.sum():
                self._fitted[number] = _fitted(rows[mask], of_objective[mask], c)
                self._offsets[number] = float(np.log(negative_rate(objective, negative_keep_rate)))

    def predict(self, examples: ExampleSet) -> dict[str, np.ndarray]:
        """Probabilities of un-sampled impressions by served objective, shape (n,)."""
        rows = self._matrix(_Part.of(examples))
        return {
            OBJECTIVE_NAMES[number]: 1.0 / (1.0 + np.exp(-(model.decision_function(rows) + self._offsets[number])))
            for number, model in self._fitted.items()
        }

    def _matrix(self, part: _Part) -> sparse.csr_matrix:
        standardised = (part.vectors - self._mean) / self._deviation
        dense = torch.cat([self._normalize(part.dense), standardised], dim=1)
        return sparse.hstack([sparse.csr_matrix(dense.numpy()), part.ids[:, self._seen]], format="csr")


def _fitted(rows: sparse.csr_matrix, labels: np.ndarray, c: float) -> LogisticRegression:
    model = LogisticRegression(C=c, solver="lbfgs", max_iter=200, tol=3e-4, warm_start=True)
    # From the odds of all rows on half the steps suffice; from even ones, the sum of predictions is off for long.
    share = labels.mean(dtype=np.float64)
    model.coef_ = np.zeros((1, rows.shape[1]), dtype=np.float32)
    model.intercept_ = np.array([np.log(share / (1.0 - share))], dtype=np.float32)
    return model.fit(rows, labels)


@dataclass(frozen=True)
class _Part:
    """What a regression takes of n examples.

    Attributes:
        features: The feature list.
        dense: Raw values, shape (n, D).
        vectors: Pretrained ones, shape (n, V).
        ids: One-hot, those of lists by their weights, those of sequences as bags; shape (n, ids of all features).
        targets: Labels and masks, shape (n, objectives) each.
    """

    features: FeatureConfig
    dense: Tensor
    vectors: Tensor
    ids: sparse.csr_matrix
    targets: tuple[Tensor, Tensor]

    @classmethod
    def of(cls, examples: ExampleSet) -> _Part:
        """Take it from examples."""
        targets = examples.labels, examples.masks
        return cls(examples.features, examples.dense_features, examples.vectors, _ids(examples), targets)


def _ids(examples: ExampleSet) -> sparse.csr_matrix:
    features, size = examples.features, len(examples)
    one_hot = examples.categorical[:, : len(features.categorical)].numpy()
    blocks = [_indicators(one_hot, np.ones(size), np.arange(size + 1), [each.num_ids for each in features.categorical])]
    for feature in features.lists:
        ids, weights = examples.positions(feature.name)
        rows, places = np.nonzero(weights)
        found = weights[rows, places], (rows, ids[rows, places])
        blocks.append(sparse.csr_matrix(found, (size, feature.num_ids)))
    lengths = examples.lengths.numpy()
    bags = examples.sequence.numpy()[np.arange(examples.sequence.shape[1]) < lengths[:, None]]
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    shares = np.repeat(1.0 / np.maximum(lengths, 1), lengths)
    tables = map(features.sequence_table, features.sequence_names)
    blocks.append(_indicators(bags, shares, offsets, [features.num_ids[table] for table in tables]))
    return sparse.hstack(blocks, format="csr")


def _indicators(ids: np.ndarray, weights: np.ndarray, offsets: np.ndarray, num_ids: list[int]) -> sparse.csr_matrix:
    """Weighted ids as columns.

    Args:
        ids: Int64, shape (k, columns).
        weights: Of each of the k, shape (k,).
        offsets: Where each row's begin among the k, and the end, shape (n + 1,).
        num_ids: Of each column.

    Returns:
        Float32, shape (n, ids of all columns); those that a row has more than once are added up.
    """
    shifted = ids + (np.cumsum(num_ids) - num_ids)
    values = np.repeat(weights.astype(np.float32), len(num_ids))
    rows = sparse.csr_matrix((values, shifted.ravel(), offsets * len(num_ids)), shape=(len(offsets) - 1, sum(num_ids)))
    rows.sum_duplicates()
    return rows
