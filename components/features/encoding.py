"""From example columns to model inputs, once for training, evaluation and serving."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from components.features.feature_list import FeatureConfig, sequence_column


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
    columns = {name: table[name].to_numpy() for name in (*features.categorical_names, *features.dense_names)}
    lists = {sequence_column(name): table[sequence_column(name)].combine_chunks() for name in features.sequence_names}
    sequence, lengths = encode_sequences(lists, features)
    return EncodedFeatures(encode_categorical(columns, features), encode_dense(columns, features), sequence, lengths)


def encode_categorical(columns: Mapping[str, np.ndarray], features: FeatureConfig) -> np.ndarray:
    """Ids, int64, shape (n, C), of hashes."""
    # Column by column in memory, as they come and as a batch wants them.
    num_ids = np.array([feature.num_ids for feature in features.categorical])
    return (np.stack([columns[name] for name in features.categorical_names]) % num_ids[:, None]).T


def encode_dense(columns: Mapping[str, np.ndarray], features: FeatureConfig) -> np.ndarray:
    """Raw values, float32, shape (n, D)."""
    return np.stack([columns[name].astype(np.float32) for name in features.dense_names], axis=1)


def encode_sequences(lists: Mapping[str, pa.ListArray], features: FeatureConfig) -> tuple[np.ndarray, np.ndarray]:
    """Padded ids, int64, shape (n, L, S), of lists of hashes, and used positions, int64, shape (n,).

    Raises:
        ValueError: If a sequence is longer than the feature list allows.
    """
    limit, names = features.sequence.length, features.sequence_names
    num_rows = len(lists[sequence_column(names[0])])
    padded = np.zeros((num_rows, limit, len(names)), dtype=np.int64)
    lengths = np.zeros(num_rows, dtype=np.int64)
    for position, name in enumerate(names):
        column = lists[sequence_column(name)]
        lengths = pc.list_value_length(column).to_numpy(zero_copy_only=False).astype(np.int64)
        if len(lengths) and lengths.max() > limit:
            raise ValueError(f"{sequence_column(name)} has {lengths.max()} values, at most {limit} fit the model")
        rows = np.repeat(np.arange(len(lengths)), lengths)
        places = np.arange(len(rows)) - np.repeat(np.cumsum(lengths) - lengths, lengths)
        num_ids = features.num_ids[features.sequence_table(name)]
        padded[rows, places, position] = column.flatten().to_numpy(zero_copy_only=False) % num_ids
    return padded, lengths
