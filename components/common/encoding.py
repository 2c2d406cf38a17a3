"""From example columns to model inputs, once for training, evaluation and serving."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from components.common.features import FeatureConfig, sequence_column


@dataclass(frozen=True)
class EncodedFeatures:
    """Features of n examples.

    Attributes:
        categorical: Ids, each below its table's `num_ids`, int64, shape (n, C).
        dense: Raw values, float32, shape (n, D).
        sequence: Ids likewise, padded at the end with 0, int64, shape (n, L, S).
        lengths: Used positions, int64, shape (n,).
    """

    categorical: np.ndarray
    dense: np.ndarray
    sequence: np.ndarray
    lengths: np.ndarray


def encode(table: pa.Table, features: FeatureConfig) -> EncodedFeatures:
    """Encode examples; hashes become ids of their table by modulo.

    Raises:
        ValueError: If a sequence is longer than the feature list allows.
    """
    ids = [table[feature.name].to_numpy() % feature.num_ids for feature in features.categorical]
    dense = [table[name].to_numpy().astype(np.float32) for name in features.dense_names]
    sequence, lengths = _padded_sequences(table, features)
    # Column by column in memory, as they come and as a batch wants them.
    return EncodedFeatures(np.stack(ids).T, np.stack(dense, axis=1), sequence, lengths)


def _padded_sequences(table: pa.Table, features: FeatureConfig) -> tuple[np.ndarray, np.ndarray]:
    limit, names = features.sequence.length, features.sequence_names
    padded = np.zeros((table.num_rows, limit, len(names)), dtype=np.int64)
    lengths = np.zeros(table.num_rows, dtype=np.int64)
    for position, name in enumerate(names):
        column = table[sequence_column(name)].combine_chunks()
        lengths = pc.list_value_length(column).to_numpy(zero_copy_only=False).astype(np.int64)
        if len(lengths) and lengths.max() > limit:
            raise ValueError(f"{sequence_column(name)} has {lengths.max()} values, at most {limit} fit the model")
        rows = np.repeat(np.arange(len(lengths)), lengths)
        places = np.arange(len(rows)) - np.repeat(np.cumsum(lengths) - lengths, lengths)
        num_ids = features.num_ids[features.sequence_table(name)]
        padded[rows, places, position] = column.flatten().to_numpy(zero_copy_only=False) % num_ids
    return padded, lengths
