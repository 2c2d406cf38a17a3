"""DCNv2 over this package's tables, trained by its own trainer: what is compared with other libraries."""

from __future__ import annotations

from typing import Literal

import numpy as np
import torch
from torch import Tensor, nn

from components.features.feature_kinds import CategoricalFeature, SequenceFeature
from components.features.feature_list import FeatureConfig
from components.features.objectives import OBJECTIVE_NAMES
from components.ranker.batch import Batch
from components.ranker.ranker import Ranker
from components.tables.embeddings import Embeddings
from components.tables.optimizer import ModelOptimizer
from components.tables.sparse_ids import make_sparse
from components.train.config import TrainConfig
from components.train.trainer import Trainer
from tests.benchmarks.train_rows import BATCH, Rows, Size

CROSS_LAYERS, HIDDEN_SIZES = 2, (256, 128)
# torch's defaults, which the peers train with, and the peers' own start of tables.
LEARNING_RATE, EPS, EMBEDDING_INIT = 1e-3, 1e-8, 1e-4


class DcnNet(nn.Module):
    """Cross layers beside an MLP with batch normalisation, and a linear map of both (Wang et al. 2021, 2008.13535)."""

    def __init__(self, width: int) -> None:
        """Take vectors of all features behind each other, `width` numbers."""
        super().__init__()
        self.cross = nn.ModuleList(nn.Linear(width, width) for _ in range(CROSS_LAYERS))
        layers: list[nn.Module] = []
        for inputs, outputs in zip((width, *HIDDEN_SIZES), HIDDEN_SIZES, strict=False):
            layers += [nn.Linear(inputs, outputs), nn.BatchNorm1d(outputs), nn.ReLU()]
        self.mlp = nn.Sequential(*layers)
        self.output = nn.Linear(width + HIDDEN_SIZES[-1], 1)

    def forward(self, vectors: Tensor) -> Tensor:
        """(n, width) to logits (n, 1)."""
        crossed = vectors
        for layer in self.cross:
            crossed = crossed + vectors * layer(crossed)
        return self.output(torch.cat([crossed, self.mlp(vectors)], dim=1))


class DcnRanker(Ranker):
    """The ranker with another net and one logit; tables, look-ups and loss are the ranker's own."""

    def __init__(self, features: FeatureConfig, dim: int) -> None:
        """Make tables and net."""
        nn.Module.__init__(self)
        self.embeddings = Embeddings(features, dim, EMBEDDING_INIT)
        self.net = DcnNet(dim * len(features.categorical))  # type: ignore[assignment]

    def forward(self, batch: Batch) -> Tensor:
        """Logits of a batch, shape (n, 1)."""
        categorical, _, _ = self.embeddings(batch.sparse)
        return self.net(categorical.flatten(1))


class Afterclick:
    """This package: `Trainer.train_step` with lazy Adam on the tables, or dense Adam as the peers have it."""

    def __init__(
        self,
        size: Size,
        tables: Literal["adam", "lazy_adam"] = "lazy_adam",
        table_multiplier: float = 1.0,
        precision: Literal["float32", "bfloat16"] = "float32",
    ) -> None:
        """Make the model; `table_multiplier` is the tables' multiple of the learning rate."""
        categorical = [CategoricalFeature(name=n, num_rows=r) for n, r in zip(size.names, size.table_rows, strict=True)]
        # A sequence that stays empty: the look-up takes one.
        self._features = FeatureConfig(categorical=tuple(categorical), sequence=SequenceFeature(length=1, entities=()))
        values = {
            "optimizer": {
                "learning_rate": LEARNING_RATE,
                "table_multiplier": table_multiplier,
                "eps": EPS,
                "tables": tables,
            },
            # The one logit is the first objective's.
            "objective_weights": {name: 0.0 for name in OBJECTIVE_NAMES[1:]},
            "batch_size": BATCH,
            "precision": precision,
        }
        config = TrainConfig.parse(values, "benchmark")
        self.model = DcnRanker(self._features, size.dim)
        self._trainer = Trainer(self.model, ModelOptimizer(self.model, config.optimizer), config, "benchmark")

    def batches(self, rows: Rows) -> list[Batch]:
        """In the form that a step takes."""
        return [self._batch(part) for part in rows.split(BATCH)]

    def train(self, batches: list[Batch]) -> None:
        """A step on each batch."""
        self.model.train()
        for batch in batches:
            self._trainer.train_step(batch)

    @torch.no_grad()
    def predict(self, rows: Rows) -> np.ndarray:
        """Probabilities, shape (n,)."""
        self.model.eval()
        return torch.cat([torch.sigmoid(self.model(batch)) for batch in self.batches(rows)]).view(-1).numpy()

    def _batch(self, rows: Rows) -> Batch:
        count = len(rows)
        no_sequence = torch.zeros(count, 1, len(self._features.sequence_names), dtype=torch.int64)
        sparse = make_sparse(
            self._features, torch.from_numpy(rows.ids), no_sequence, torch.zeros(count, dtype=torch.int64)
        )
        labels = torch.from_numpy(rows.labels).view(-1, 1)
        return Batch(sparse, torch.zeros(count, 0), torch.zeros(count, 0), labels, torch.ones_like(labels))
