"""From example columns to model inputs, once for training, evaluation and serving."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from components.features.feature_kinds import NUM_HASHES
from components.features.feature_list import FeatureConfig, sequence_column
from components.features.learned_rows import RowIndex


@dataclass(frozen=True)
class EncodedFeatures:
    """Features of n examples.

    Attributes:
        categorical: Ids, each below its table's modulus, then those of lists' P positions, padded at each list's end
            with 0; int64, shape (n, C + P).
        owners: Hashes of those whose pretrained vectors are looked up, int64, shape (n, F).
        dense: Raw values, then the weights of these positions, 0 where one is not used; float32, shape (n, D + P).
        sequence: Ids likewise, padded at the end with 0, int64, shape (n, L, S).
        lengths: Used positions, int64, shape (n,).
    """

    categorical: np.ndarray
    owners: np.ndarray
    dense: np.ndarray
    sequence: np.ndarray
    lengths: np.ndarray

    @property
    def served_ids(self) -> np.ndarray:
        """What a version's tables are asked for, as `served_columns` has it, int64, shape (n, C + P + F)."""
        return with_owners(self.categorical, self.owners)

    def with_rows(self, features: FeatureConfig, indexes: Mapping[str, RowIndex]) -> EncodedFeatures:
        """The same with ids as a model takes them: rows where it has learned them; `indexes` are its own, by table."""
        categorical = learned_rows(self.categorical, features.categorical_tables, features, indexes)
        sequence = learned_rows(self.sequence, features.sequence_tables, features, indexes)
        return replace(self, categorical=categorical, sequence=sequence)

    def with_vectors(self, features: FeatureConfig, indexes: Mapping[str, RowIndex]) -> EncodedFeatures:
        """The same with places in a version's tables of pretrained vectors instead of hashes."""
        return replace(self, owners=learned_rows(self.owners, features.vector_names, features, indexes))


def encode(table: pa.Table, features: FeatureConfig) -> EncodedFeatures:
    """Encode examples; hashes become ids of their table by modulo; where a model learns rows, they stay as they are.

    Raises:
        ValueError: If a sequence is longer than the feature list allows.
    """
    columns = {name: table[name].to_numpy() for name in (*features.categorical_names, *features.dense_names)}
    lists = {sequence_column(name): table[sequence_column(name)].combine_chunks() for name in features.sequence_names}
    sequence, lengths = encode_sequences(lists, features)
    positions = encode_lists({name: table[name].combine_chunks() for name in features.list_columns}, features)
    categorical = encode_categorical(columns, features, positions)
    owners = encode_owners(columns, features)
    return EncodedFeatures(categorical, owners, encode_dense(columns, features, positions), sequence, lengths)


@dataclass(frozen=True)
class ListPositions:
    """Where the identifiers of n rows' lists are.

    Attributes:
        ids: Of each list the first ones, then 0; int64, shape (P, n).
        weights: Of their vectors in the pooled one, 0 where there is no identifier; float32, shape (P, n).
    """

    ids: np.ndarray
    weights: np.ndarray


def encode_categorical(
    columns: Mapping[str, np.ndarray], features: FeatureConfig, positions: ListPositions | None = None
) -> np.ndarray:
    """Ids, int64, shape (n, C + P), of hashes; those of lists where `positions` are given."""
    # Column by column in memory, as they come and as a batch wants them.
    ids = np.stack([columns[name] for name in features.categorical_names]) % features.categorical_moduli[:, None]
    return (np.concatenate([ids, positions.ids]) if positions is not None and features.lists else ids).T


def encode_owners(columns: Mapping[str, np.ndarray], features: FeatureConfig) -> np.ndarray:
    """Hashes of the users or items whose pretrained vectors are looked up, int64, shape (n, F)."""
    num_rows = len(columns[features.categorical_names[0]])
    owners = [columns[feature.entity] % NUM_HASHES for feature in features.vectors]
    return np.stack(owners, axis=1) if owners else np.zeros((num_rows, 0), dtype=np.int64)


def with_owners(categorical: np.ndarray, owners: np.ndarray) -> np.ndarray:
    """Ids of categorical features and lists' positions, then of pretrained vectors, int64, shape (n, C + P + F)."""
    return np.concatenate([categorical, owners], axis=1) if owners.shape[1] else categorical


def encode_dense(columns: Mapping[str, np.ndarray], features: FeatureConfig, positions: ListPositions) -> np.ndarray:
    """Raw values, and weights of positions; float32, shape (n, D + P)."""
    return np.stack([*(columns[name].astype(np.float32) for name in features.dense_names), *positions.weights], axis=1)


def encode_lists(lists: Mapping[str, pa.ListArray], features: FeatureConfig) -> ListPositions:
    """Identifiers and weights of the positions of lists, from example columns by name; identifiers of no weight go.

    Raises:
        ValueError: If a row has not as many weights as identifiers.
    """
    num_rows = len(next(iter(lists.values()), ()))
    ids = np.zeros((features.num_positions, num_rows), dtype=np.int64)
    weights = np.zeros(ids.shape, dtype=np.float32)
    for feature in features.lists:
        start, _ = features.list_positions[feature.name]
        rows = _rows_of(lists[feature.name])
        values = lists[feature.name].flatten().to_numpy(zero_copy_only=False)
        given: np.ndarray = np.ones(len(values))
        if feature.weights is not None:
            if not np.array_equal(rows, _rows_of(lists[feature.weights])):
                raise ValueError(f"{feature.weights} has rows with another number of values than {feature.name}")
            given = lists[feature.weights].flatten().to_numpy(zero_copy_only=False).astype(np.float64)
        kept = np.flatnonzero(given > 0)
        places = np.arange(len(kept)) - np.searchsorted(rows[kept], rows[kept])
        kept, places = kept[places < feature.length], places[places < feature.length]
        values, rows, given = values[kept], rows[kept], given[kept]
        if feature.pooling == "mean":
            given = given / np.bincount(rows, given, num_rows)[rows]
        ids[start + places, rows] = values % feature.modulus
        # A weight that rounds to 0 would make its position an unused one.
        weights[start + places, rows] = np.maximum(given, np.finfo(np.float32).tiny)
    return ListPositions(ids, weights)


def _rows_of(lists: pa.ListArray) -> np.ndarray:
    """The row of each value, int64, ascending."""
    lengths = pc.fill_null(pc.list_value_length(lists), 0).to_numpy(zero_copy_only=False)
    return np.repeat(np.arange(len(lengths)), lengths)


def encode_sequences(lists: Mapping[str, pa.ListArray], features: FeatureConfig) -> tuple[np.ndarray, np.ndarray]:
    """Padded ids, int64, shape (n, L, S), of lists of hashes, and used positions, int64, shape (n,).

    Raises:
        ValueError: If a sequence is longer than the feature list allows, or its columns have not as many values.
    """
    limit, names = features.sequence.length, features.sequence_names
    num_rows = len(lists[sequence_column(names[0])])
    padded = np.zeros((num_rows * limit, len(names)), dtype=np.int64)
    lengths = places = np.zeros(0, dtype=np.int64)
    for position, name in enumerate(names):
        column = lists[sequence_column(name)]
        of_name = pc.list_value_length(column).to_numpy(zero_copy_only=False).astype(np.int64)
        if len(of_name) and of_name.max() > limit:
            raise ValueError(f"{sequence_column(name)} has {of_name.max()} values, at most {limit} fit the model")
        if position == 0:
            lengths, starts = of_name, np.arange(num_rows) * limit
            places = np.repeat(starts - np.cumsum(lengths) + lengths, lengths) + np.arange(lengths.sum())
        elif not np.array_equal(of_name, lengths):
            raise ValueError(
                f"{sequence_column(name)} has rows with another number of values than {sequence_column(names[0])}"
            )
        modulus = features.moduli[features.sequence_table(name)]
        padded[places, position] = column.flatten().to_numpy(zero_copy_only=False) % modulus
    return padded.reshape(num_rows, limit, len(names)), lengths


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
    missing = sorted({*tables} & {*features.indexed} - {*indexes})
    if missing:
        raise ValueError(
            f"{missing[0]} has rows of its own for ids; pass the indexes of the checkpoint or version (`read_indexes`)"
        )
    learned = [column for column, table in enumerate(tables) if table in features.indexed]
    if not learned:
        return ids
    found = ids.copy(order="K")
    for column in learned:
        found[..., column] = indexes[tables[column]].rows(ids[..., column])
    return found
