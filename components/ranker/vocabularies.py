"""The vocabularies of a model's exact ids: learned before each training, kept beside its weights."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import TypeAlias

import numpy as np
import pyarrow as pa
import safetensors.numpy

from components.common import parquet_files, storage
from components.features.exact_ids import IdIndex, Vocabulary
from components.features.feature_list import FeatureConfig, sequence_column

VOCABULARY_FILE = "vocabulary.safetensors"
_EXAMPLES_AT_ONCE = 65_536
Vocabularies: TypeAlias = Mapping[str, Vocabulary]


def new_vocabularies(features: FeatureConfig) -> dict[str, Vocabulary]:
    """Empty ones, by table."""
    return {table: Vocabulary(exact) for table, exact in features.exact_ids.items()}


def indexes_of(vocabularies: Vocabularies) -> dict[str, IdIndex]:
    """Which row each id has, by table."""
    return {table: vocabulary.index for table, vocabulary in vocabularies.items()}


def write_vocabularies(folder: str, vocabularies: Vocabularies) -> list[str]:
    """Write them as a file, if there are any; returns its name."""
    if not vocabularies:
        return []
    state = {f"{table}/{name}": values for table, own in vocabularies.items() for name, values in own.state.items()}
    storage.write_bytes(storage.join_uri(folder, VOCABULARY_FILE), safetensors.numpy.save(state))
    return [VOCABULARY_FILE]


def read_vocabularies(features: FeatureConfig, read: Callable[[str], bytes]) -> dict[str, Vocabulary]:
    """What `write_vocabularies` wrote; `read` gives a file's content."""
    if not features.exact_ids:
        return {}
    state: dict[str, dict[str, np.ndarray]] = {table: {} for table in features.exact_ids}
    for key, values in safetensors.numpy.load(read(VOCABULARY_FILE)).items():
        table, _, name = key.rpartition("/")
        state[table][name] = values
    return {table: Vocabulary(exact, state[table]) for table, exact in features.exact_ids.items()}


def count_ids(features: FeatureConfig, uris: Iterable[str]) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """The different exact ids of files of examples, and how often each occurs, in columns and sequences together.

    Returns:
        By table: ids, ascending, int64, shape (u,), and their counts, int64, likewise.
    """
    columns: dict[str, list[str]] = {table: [table] for table in features.exact_ids}
    for name in features.sequence_names:
        if features.sequence_table(name) in columns:
            columns[features.sequence_table(name)].append(sequence_column(name))
    wanted = [name for names in columns.values() for name in names]
    found: dict[str, list[tuple[np.ndarray, np.ndarray]]] = {table: [] for table in columns}
    for uri in uris if wanted else ():
        for part in parquet_files.read_parquet_batches(uri, _EXAMPLES_AT_ONCE, wanted):
            for table, names in columns.items():
                ids = np.concatenate([_flat(part[name]) for name in names]) % features.moduli[table]
                found[table].append(np.unique(ids, return_counts=True))
    return {table: _added(parts) for table, parts in found.items()}


def _flat(column: pa.ChunkedArray) -> np.ndarray:
    together = column.combine_chunks()
    return (together.flatten() if pa.types.is_list(together.type) else together).to_numpy(zero_copy_only=False)


def _added(parts: list[tuple[np.ndarray, np.ndarray]]) -> tuple[np.ndarray, np.ndarray]:
    if not parts:
        return np.zeros(0, dtype=np.int64), np.zeros(0, dtype=np.int64)
    together, places = np.unique(np.concatenate([ids for ids, _ in parts]), return_inverse=True)
    counts = np.zeros(len(together), dtype=np.int64)
    np.add.at(counts, places, np.concatenate([counted for _, counted in parts]))
    return together, counts
