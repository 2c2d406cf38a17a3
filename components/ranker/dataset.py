"""Examples as tensors."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor

from components.common.days import MICROSECONDS_PER_DAY
from components.features.encoding import encode
from components.features.examples import NEGATIVE_KEPT, USER_HASH
from components.features.feature_list import FeatureConfig
from components.features.learned_rows import NO_INDEXES, RowIndex
from components.features.objectives import OBJECTIVES, Objective
from components.features.vectors import KnownVectors
from components.ranker.batch import Batch
from components.tables.sparse_ids import make_sparse


@dataclass(frozen=True)
class ExampleSet:
    """Examples of one or more days in memory; n rows.

    Attributes:
        features: The feature list.
        categorical: Ids, then those of lists' positions, int64, shape (n, C + P).
        vectors: Pretrained ones behind each other, zeros where there is none, float32, shape (n, V).
        dense: Raw values, then the weights of lists' positions, float32, shape (n, D + P).
        sequence: Ids, padded at the end with 0, int64, shape (n, L, S).
        lengths: Used positions, int64, shape (n,).
        labels: 0 or 1, float32, shape (n, objectives).
        masks: Participation, float32, shape (n, objectives).
        users: Hashed users, int64, shape (n,).
    """

    features: FeatureConfig
    categorical: Tensor
    vectors: Tensor
    dense: Tensor
    sequence: Tensor
    lengths: Tensor
    labels: Tensor
    masks: Tensor
    users: np.ndarray

    def __len__(self) -> int:
        """Number of rows."""
        return len(self.dense)

    @property
    def dense_features(self) -> Tensor:
        """The raw values alone, shape (n, D)."""
        return self.dense[:, : len(self.features.dense_names)]

    def positions(self, name: str) -> tuple[np.ndarray, np.ndarray]:
        """Ids of a list's positions, int64, and their weights, 0 where there is none, float32; shape (n, length)."""
        start, stop = self.features.list_positions[name]
        num_categorical, num_dense = len(self.features.categorical_names), len(self.features.dense_names)
        ids = self.categorical[:, num_categorical + start : num_categorical + stop]
        return ids.numpy(), self.dense[:, num_dense + start : num_dense + stop].numpy()

    def batch(self, rows: Tensor | slice) -> Batch:
        """The batch of some rows."""
        dense = self.dense[rows]
        used = dense[:, len(self.features.dense_names) :] > 0
        sparse = make_sparse(self.features, self.categorical[rows], self.sequence[rows], self.lengths[rows], used)
        return Batch(sparse, self.vectors[rows], dense, self.labels[rows], self.masks[rows])

    def slice(self, start: int, stop: int) -> ExampleSet:
        """Rows `start`..`stop`."""
        part: dict[str, Any] = {name: getattr(self, name)[start:stop] for name in _COLUMNS}
        return replace(self, **part)

    def in_order(self, batch_size: int) -> Iterator[Batch]:
        """Batches in the order of the rows."""
        for start in range(0, len(self), batch_size):
            yield self.batch(slice(start, start + batch_size))

    def shuffled(self, batch_size: int, seed: int) -> Iterator[Batch]:
        """Batches in an order that only the seed decides."""
        order = torch.randperm(len(self), generator=torch.Generator().manual_seed(seed))
        for start in range(0, len(self), batch_size):
            yield self.batch(order[start : start + batch_size])


_COLUMNS = tuple(field.name for field in fields(ExampleSet) if field.name != "features")


def concatenate(parts: list[ExampleSet]) -> ExampleSet:
    """Rows behind each other, of at least one set."""
    if len(parts) == 1:
        return parts[0]
    joined: dict[str, Any] = {}
    for name in _COLUMNS:
        columns = [getattr(part, name) for part in parts]
        joined[name] = torch.cat(columns) if isinstance(columns[0], Tensor) else np.concatenate(columns)
    return replace(parts[0], **joined)


def participation(objective: Objective, table: pa.Table, unsampled: bool) -> tuple[np.ndarray, np.ndarray]:
    """Labels of an objective and which rows take part, both bool, shape (n,).

    A row is a negative of an objective over all or not clicked impressions only if the sampling hash kept it, even when
    another objective's positive kept the row: so each head's negatives are a uniform sample at one known rate. On rows
    that were not down-sampled every negative takes part.
    """
    positive = table[objective.label].to_numpy() > 0
    clicked = table["clicked"].to_numpy() > 0
    if objective.rows == "clicked":
        return positive & clicked, clicked
    eligible = np.ones(len(clicked), dtype=bool) if objective.rows == "all" else ~clicked
    if unsampled:
        return positive & eligible, eligible
    return positive & eligible, eligible & (positive | table[NEGATIVE_KEPT].to_numpy())


def tensors_of(
    table: pa.Table,
    features: FeatureConfig,
    unsampled: bool,
    indexes: Mapping[str, RowIndex] = NO_INDEXES,
    vectors: KnownVectors | None = None,
) -> ExampleSet:
    """Turn a table of examples into tensors.

    Args:
        table: n rows.
        features: The feature list.
        unsampled: Whether all negatives are there.
        indexes: Of the model's exact ids, by table.
        vectors: Where pretrained ones are looked up; needed if the feature list has any.

    Raises:
        ValueError: If what the feature list needs is not given.
    """
    encoded = encode(table, features).with_rows(features, indexes)
    taking_part = [participation(objective, table, unsampled) for objective in OBJECTIVES]
    return ExampleSet(
        features=features,
        categorical=torch.from_numpy(encoded.categorical),
        vectors=torch.from_numpy(_vectors(table, features, encoded.owners, vectors)),
        dense=torch.from_numpy(encoded.dense),
        sequence=torch.from_numpy(encoded.sequence),
        lengths=torch.from_numpy(encoded.lengths),
        labels=torch.from_numpy(np.stack([label for label, _ in taking_part], axis=1).astype(np.float32)),
        masks=torch.from_numpy(np.stack([mask for _, mask in taking_part], axis=1).astype(np.float32)),
        users=table[USER_HASH].to_numpy(),
    )


def _vectors(table: pa.Table, features: FeatureConfig, owners: np.ndarray, vectors: KnownVectors | None) -> np.ndarray:
    if not features.vectors:
        return np.zeros((table.num_rows, 0), dtype=np.float32)
    if vectors is None:
        raise ValueError(f"{features.vector_names[0]} is a pretrained vector; pass its deliveries (`KnownVectors`)")
    return vectors.look_up(owners, table["timestamp"].cast(pa.int64()).to_numpy() // MICROSECONDS_PER_DAY)
