"""Embedding tables behind one TorchRec EmbeddingCollection."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torchrec.modules.embedding_configs import EmbeddingConfig
from torchrec.modules.embedding_modules import EmbeddingCollection
from torchrec.sparse.jagged_tensor import KeyedJaggedTensor

from components.common.features import FeatureConfig, sequence_column
from components.train.config import ModelConfig


class Embeddings(nn.Module):
    """Looks up every categorical feature and sequence column; sequence entities share the impression's own tables."""

    def __init__(self, features: FeatureConfig, config: ModelConfig) -> None:
        """Make one table per entry of `features.tables`, drawn from N(0, `embedding_init`^2)."""
        super().__init__()
        self._categorical = features.categorical_names
        self._sequence = tuple(sequence_column(name) for name in features.sequence_names)
        self._length = features.sequence.length
        keys: dict[str, list[str]] = {table: [] for table in features.tables}
        for name in features.categorical_names:
            keys[name].append(name)
        for name in features.sequence_names:
            keys[features.sequence_table(name)].append(sequence_column(name))
        tables = [
            EmbeddingConfig(
                name=table, embedding_dim=config.embedding_dim, num_embeddings=rows, feature_names=keys[table]
            )
            for table, rows in features.tables.items()
        ]
        self.collection = EmbeddingCollection(tables=tables)
        with torch.no_grad():
            for weight in self.collection.parameters():
                weight.normal_(std=config.embedding_init)

    def forward(self, sparse: KeyedJaggedTensor) -> tuple[Tensor, Tensor, Tensor]:
        """Look up a batch of n rows.

        Returns:
            Categorical vectors (n, C, dim), sequence vectors padded with zeros (n, L, S * dim), lengths (n,).
        """
        found = self.collection(sparse)
        categorical = torch.stack([found[name].values() for name in self._categorical], dim=1)
        sequence = torch.cat([found[name].to_padded_dense(self._length) for name in self._sequence], dim=2)
        return categorical, sequence, found[self._sequence[0]].lengths().to(torch.int64)

    def tables(self) -> dict[str, Tensor]:
        """The weights of every table by name, shape (rows, dim)."""
        return {name: table.weight.detach().contiguous() for name, table in self.collection.embeddings.items()}

    def zeros(self, rows: int) -> tuple[Tensor, Tensor]:
        """Categorical and sequence vectors of the shapes that `forward` gives for some number of rows."""
        dim = self.collection.embedding_dim()
        return (
            torch.zeros(rows, len(self._categorical), dim),
            torch.zeros(rows, self._length, len(self._sequence) * dim),
        )
