"""The multi-task ranker and its loss."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from components.features.feature_list import FeatureConfig
from components.features.objectives import OBJECTIVES, negative_rate
from components.ranker.batch import Batch
from components.ranker.config import ModelConfig
from components.ranker.dataset import ExampleSet
from components.ranker.dhen import Dhen
from components.ranker.feature_processing import DenseNormalizer, Moments
from components.ranker.heads import Heads
from components.ranker.joint_linear import filled_up, joint_linear
from components.ranker.list_pooling import ListPooling
from components.ranker.row_gates import RowGates
from components.ranker.sequence import SequenceEncoder
from components.ranker.vector_norm import VectorNorm
from components.tables.embeddings import Embeddings
from components.tables.look_ups import double_of
from components.tables.shard_layout import HeldRows
from components.tables.table_model import TableModel


class RankerNet(nn.Module):
    """Everything behind the embedding tables: what is exported as the ONNX ranker.

    A shared MLP with a head per objective, on the features as they are or mixed by a DHEN stack, beside a linear path
    from vectors and dense features to each logit (Wide & Deep, Cheng et al. 2016), which learns the plain effects in
    the few steps that a day has.
    """

    def __init__(self, features: FeatureConfig, config: ModelConfig, gated: tuple[str, ...] = ()) -> None:
        """Size the layers from the feature list; rows of `gated` tables are mixed with pretrained ones."""
        super().__init__()
        dim = config.embedding_dim
        self.normalize = DenseNormalizer(features)
        self.lists = ListPooling(features)
        self.vectors = VectorNorm(features, dim) if features.vectors else None
        num_categorical = self.lists.num_vectors
        num_sequence, num_dense = features.num_vectors(features.sequence_tables), len(features.dense_names)
        num_dense += self.vectors.num_features if self.vectors else 0
        self.sequence = SequenceEncoder(dim * num_sequence, features.sequence.length, config)
        self.dhen = Dhen(num_categorical, num_dense, config.sequence_dim, dim, config.dhen) if config.dhen else None
        width = self.dhen.width if self.dhen else dim * num_categorical + num_dense + config.sequence_dim
        layers: list[nn.Module] = []
        for size in config.hidden_sizes:
            layers += [nn.Linear(width, size), nn.ReLU(), nn.Dropout(config.dropout)]
            width = size
        self.shared = nn.Sequential(*layers)
        self.heads = Heads(width, config.head_size)
        self.wide = nn.Linear(dim * num_categorical + num_dense, len(OBJECTIVES))
        nn.init.zeros_(self.wide.weight)
        nn.init.zeros_(self.wide.bias)
        self.gates = RowGates(gated, dim) if gated else None

    def fit(self, parts: Iterable[ExampleSet]) -> None:
        """Take the dense features' scales, and the share of positives to start from, from training examples."""
        moments = Moments(len(self.normalize.mean))
        positives, taking_part = torch.zeros(2, len(OBJECTIVES), dtype=torch.float64)
        for part in parts:
            moments.add(part.dense_features)
            positives += (part.labels * part.masks).sum(0)
            taking_part += part.masks.sum(0)
        self.normalize.fit(moments)
        self.heads.start_at((positives / taking_part.clamp(min=1)).to(torch.float32))

    def forward(self, categorical: Tensor, dense: Tensor, sequence: Tensor, lengths: Tensor) -> Tensor:
        """Logits, as trained on down-sampled negatives.

        Args:
            categorical: Vectors, then those of lists' positions, then the rows of pretrained vectors, shape
                (n, C + P + R, dim).
            dense: Raw dense features, then the weights of lists' positions, shape (n, D + P).
            sequence: Vectors padded with zeros, shape (n, L, S * dim).
            lengths: Used positions, int64, shape (n,).

        Returns:
            Shape (n, objectives).
        """
        return self.mix(categorical, dense, self.sequence(sequence, lengths))

    def mix(self, categorical: Tensor, dense: Tensor, encoded: Tensor) -> Tensor:
        """The logits of `forward`, from sequences that are encoded, shape (n, sequence_dim)."""
        given = None
        if self.vectors is not None:
            categorical, rows = categorical[:, : -self.vectors.num_rows], categorical[:, -self.vectors.num_rows :]
            given = self.vectors(rows)
        categorical, dense = self.lists(categorical, dense)
        scaled = self.normalize(dense) if given is None else torch.cat([self.normalize(dense), given], dim=1)
        if self.training and self.dhen is None:
            # The same numbers in fewer and faster products; an exported graph has the plain layers.
            inputs = filled_up([categorical.flatten(1), scaled, encoded])
            hidden, wide = joint_linear(inputs, [cast(nn.Linear, self.shared[0]), self.wide])
            return self.heads(self.shared[1:](hidden)) + wide
        direct = torch.cat([categorical.flatten(1), scaled], dim=1)
        mixed = torch.cat([direct, encoded], dim=1) if self.dhen is None else self.dhen(categorical, scaled, encoded)
        return self.heads(self.shared(mixed)) + self.wide(direct)


class Ranker(TableModel):
    """Tables and net together, with the loss."""

    net: RankerNet

    def __init__(
        self,
        features: FeatureConfig,
        config: ModelConfig,
        held: HeldRows | None = None,
        gated: tuple[str, ...] = (),
    ) -> None:
        """Make both parts; given `held`, of the tables only those rows; the rows of `gated` ones are mixed."""
        super().__init__()
        self.embeddings = Embeddings(features, config.embedding_dim, config.embedding_init, held, gated)
        self.net = RankerNet(features, config, gated)

    def forward(self, batch: Batch) -> Tensor:
        """Logits of a batch, shape (n, objectives)."""
        categorical, sequence, lengths = self.vectors(batch)
        return self.net(categorical, batch.dense, sequence, lengths)

    def vectors(self, batch: Batch) -> tuple[Tensor, Tensor, Tensor]:
        """What the net takes of a batch beside its dense features, as `KeyLayout.arrange` gives it."""
        categorical, sequence, lengths = self.embeddings(batch.sparse, self.net.gates)
        if self.net.vectors is not None:
            categorical = torch.cat([categorical, self.net.vectors.as_rows(batch.vectors)], dim=1)
        return categorical, sequence, lengths

    def served_tables(self) -> dict[str, Tensor]:
        """The tables of the feature list, shape (rows, dim) each: rows that are gated as the gates mix them."""
        tables, gates = self.embeddings.tables(), self.net.gates
        doubles = {name: tables.pop(double_of(name)) for name in self.embeddings.layout.doubled}
        if gates is not None:
            tables |= {name: gates.mixed_table(name, tables[name], rows) for name, rows in doubles.items()}
        return tables

    def loss(self, batch: Batch, weights: Tensor) -> tuple[Tensor, Tensor]:
        """Weighted sum of the masked binary cross-entropies.

        Args:
            batch: n rows.
            weights: Of the objectives, shape (objectives,).

        Returns:
            The total, and each objective's mean over the rows that take part, shape (objectives,); 0 without rows.
        """
        means = objective_losses(self(batch), batch, batch.masks.sum(dim=0))
        return (means * weights).sum(), means


def objective_losses(logits: Tensor, batch: Batch, taking_part: Tensor) -> Tensor:
    """Masked binary cross-entropy of each objective, divided by a number of rows.

    Args:
        logits: Shape (n, objectives).
        batch: The n rows.
        taking_part: How many rows take part in each objective, here or in all parts of a batch; shape (objectives,).

    Returns:
        Shape (objectives,); 0 without rows.
    """
    losses = functional.binary_cross_entropy_with_logits(logits.float(), batch.labels, reduction="none")
    return (losses * batch.masks).sum(dim=0) / taking_part.clamp(min=1.0)


class LogitCorrection(nn.Module):
    """Makes probabilities of un-sampled impressions from logits that were trained on sampled negatives.

    A negative kept at rate r divides the odds by r, so ln(r) is added to the head's logit, exactly once.
    """

    offsets: Tensor

    def __init__(self, negative_keep_rate: float) -> None:
        """One offset per objective, at that objective's own rate."""
        super().__init__()
        rates = [negative_rate(objective, negative_keep_rate) for objective in OBJECTIVES]
        self.register_buffer("offsets", torch.tensor([math.log(rate) for rate in rates]))

    def forward(self, logits: Tensor) -> Tensor:
        """Probabilities, shape (n, objectives)."""
        return torch.sigmoid(logits + self.offsets)
