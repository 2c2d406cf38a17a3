"""The yardstick: a logistic regression on the same features."""

from __future__ import annotations

import numpy as np
import torch
from scipy import sparse
from sklearn.linear_model import LogisticRegression
from torch import Tensor

from components.features.objectives import OBJECTIVE_NAMES, OBJECTIVES, negative_rate
from components.ranker.dataset import ExampleSet
from components.ranker.feature_processing import DenseNormalizer, Moments


class Yardstick:
    """One L2-regularised logistic regression per served objective.

    Each sees what the ranker sees: every id one-hot, the ids of the sequence as a bag, the dense features normalised as
    the ranker normalises them, and pretrained vectors, standardised.
    """

    def __init__(self, training: ExampleSet, negative_keep_rate: float, c: float, served: tuple[str, ...]) -> None:
        """Fit on training examples; `c` is the inverse of the L2 strength, `served` what is predicted."""
        self._normalize = DenseNormalizer(training.features)
        self._normalize.fit(Moments.of(training.dense_features))
        self._mean = training.vectors.mean(dim=0)
        self._deviation = (training.vectors - self._mean).square().mean(dim=0).sqrt().clamp(min=1e-6)
        rows = self._matrix(training)
        # Columns that no training example has would only take memory: of millions of codes, few are seen.
        self._columns = np.flatnonzero(rows.getnnz(axis=0))
        rows = rows[:, self._columns]
        self._fitted: dict[int, LogisticRegression] = {}
        self._offsets: dict[int, float] = {}
        for number, objective in enumerate(OBJECTIVES):
            labels, mask = training.labels[:, number].numpy(), training.masks[:, number].numpy() > 0
            if objective.name in served and 0 < labels[mask].sum() < mask.sum():
                model = LogisticRegression(C=c, solver="lbfgs", max_iter=200, tol=1e-3)
                self._fitted[number] = model.fit(rows[mask], labels[mask])
                self._offsets[number] = float(np.log(negative_rate(objective, negative_keep_rate)))

    def predict(self, examples: ExampleSet) -> dict[str, np.ndarray]:
        """Probabilities of un-sampled impressions by served objective, shape (n,)."""
        rows = self._matrix(examples)[:, self._columns]
        return {
            OBJECTIVE_NAMES[number]: 1.0 / (1.0 + np.exp(-(model.decision_function(rows) + self._offsets[number])))
            for number, model in self._fitted.items()
        }

    def _standardised(self, vectors: Tensor) -> Tensor:
        return (vectors - self._mean) / self._deviation

    def _matrix(self, examples: ExampleSet) -> sparse.csr_matrix:
        features, size = examples.features, len(examples)
        dense = torch.cat([self._normalize(examples.dense_features), self._standardised(examples.vectors)], dim=1)
        blocks = [sparse.csr_matrix(dense.numpy())]
        for position, feature in enumerate(features.categorical):
            ids = examples.categorical[:, position].numpy()
            ones = np.ones(size, dtype=np.float32)
            blocks.append(sparse.csr_matrix((ones, ids, np.arange(size + 1)), shape=(size, feature.num_ids)))
        for feature in features.lists:
            ids, weights = examples.positions(feature.name)
            rows, places = np.nonzero(weights)
            found = weights[rows, places], (rows, ids[rows, places])
            blocks.append(sparse.csr_matrix(found, (size, feature.num_ids)))
        lengths = examples.lengths.numpy()
        used = np.arange(examples.sequence.shape[1]) < lengths[:, None]
        offsets = np.concatenate([[0], np.cumsum(lengths)])
        weights = np.repeat(1.0 / np.maximum(lengths, 1), lengths).astype(np.float32)
        for position, name in enumerate(features.sequence_names):
            ids = examples.sequence[:, :, position].numpy()[used]
            num_ids = features.num_ids[features.sequence_table(name)]
            bag = sparse.csr_matrix((weights, ids, offsets), shape=(size, num_ids))
            bag.sum_duplicates()
            blocks.append(bag)
        return sparse.hstack(blocks, format="csr")
