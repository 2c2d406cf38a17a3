"""From example columns to model inputs, once for training, evaluation and serving."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from components.features.feature_list import FeatureConfig, sequence_column
from components.features.learned_rows import RowIndex


@dataclass(frozen=True)
class EncodedFeatures:
    """Features of n examples.

    Attributes:
        categorical: Ids, each below its table's modulus, int64, shape (n, C).
        dense: Raw values, float32, shape (n, D).
        sequence: Ids likewise, padded at the end with 0, int64, shape (n, L, S).
        lengths: Used positions, int64, shape (n,).
    """

    categorical: np.ndarray
    dense: np.ndarray
    sequence: np.ndarray
    lengths: np.ndarray

    def with_rows(self, features: FeatureConfig, indexes: Mapping[str, RowIndex]) -> EncodedFeatures:
        """The same with ids as a model takes them: rows where it has learned them; `indexes` are its own, by table."""
        categorical = learned_rows(self.categorical, features.categorical_tables, features, indexes)
        sequence = learned_rows(self.sequence, features.sequence_tables, features, indexes)
        return replace(self, categorical=categorical, sequence=sequence)


def encode(table: pa.Table, features: FeatureConfig) -> EncodedFeatures:
    """Encode examples; hashes become ids of their table by modulo; where a model learns rows, they stay as they are.

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
    moduli = np.array([feature.modulus for feature in features.categorical])
    return (np.stack([columns[name] for name in features.categorical_names]) % moduli[:, None]).T


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
        modulus = features.moduli[features.sequence_table(name)]
        padded[rows, places, position] = column.flatten().to_numpy(zero_copy_only=False) % modulus
    return padded, lengths


def learned_rows(
    ids: np.ndarray, tables: tuple[str, ...], features: FeatureConfig, indexes: Mapping[str, RowIndex]
) -> np.ndarray:
    """Ids as the model takes them: of tables whose rows it has learned the rows, of others the same.

    Args:
        ids: As they are encoded, int64, shape (..., columns).
        tables: Of each column.
        features: The feature list.
        indexes: Of the checkpoint or version, by table.

    Returns:
        int64, of the same shape.

    Raises:
        ValueError: If a table's index is not given.
    """
    missing = sorted({*tables} & {*features.learned} - {*indexes})
    if missing:
        raise ValueError(
            f"{missing[0]} has learned rows; pass the indexes of the checkpoint or version (`read_indexes`)"
        )
    learned = [column for column, table in enumerate(tables) if table in features.learned]
    if not learned:
        return ids
    found = ids.copy(order="K")
    for column in learned:
        found[..., column] = indexes[tables[column]].rows(ids[..., column])
    return found
