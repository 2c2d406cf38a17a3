"""Which rows a model's ids have, where training decides it: learned before each one, kept beside the weights."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from itertools import chain
from typing import TypeAlias

import numpy as np
import pyarrow as pa
import safetensors.numpy

from components.common import parquet_files, storage
from components.features.feature_kinds import NUM_HASHES
from components.features.feature_list import FeatureConfig, sequence_column
from components.features.hashing import added_up
from components.features.learned_rows import LearnedRows, RowIndex

VOCABULARY_FILE = "vocabulary.safetensors"
_EXAMPLES_AT_ONCE = 65_536
Vocabularies: TypeAlias = Mapping[str, LearnedRows]


def new_vocabularies(features: FeatureConfig) -> dict[str, LearnedRows]:
    """Empty ones, by table."""
    return {table: rule.learned() for table, rule in features.learned.items()}


def indexes_of(vocabularies: Vocabularies) -> dict[str, RowIndex]:
    """Which row each id has, by table."""
    return {table: vocabulary.index for table, vocabulary in vocabularies.items()}


def write_vocabularies(folder: str, vocabularies: Vocabularies) -> list[str]:
    """Write them as a file, if there are any; returns its name."""
    if not vocabularies:
        return []
    state = {f"{table}/{name}": values for table, own in vocabularies.items() for name, values in own.state.items()}
    storage.write_bytes(storage.join_uri(folder, VOCABULARY_FILE), safetensors.numpy.save(state))
    return [VOCABULARY_FILE]


def read_vocabularies(features: FeatureConfig, read: Callable[[str], bytes]) -> dict[str, LearnedRows]:
    """What `write_vocabularies` wrote; `read` gives a file's content."""
    if not features.learned:
        return {}
    state: dict[str, dict[str, np.ndarray]] = {table: {} for table in features.learned}
    for key, values in safetensors.numpy.load(read(VOCABULARY_FILE)).items():
        table, _, name = key.rpartition("/")
        state[table][name] = values
    return {table: rule.learned(state[table]) for table, rule in features.learned.items()}


def count_ids(
    features: FeatureConfig, uris: Iterable[str], tables: Collection[str]
) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """The different ids that some tables are looked up by in files of examples, and how often each occurs.

    Returns:
        By table: ids as they are hashed, ascending, int64, shape (u,), and their counts, int64, likewise.
    """
    columns: dict[str, list[str]] = {table: [] for table in tables}
    keys = [(name, name) for name in (*features.categorical_names, *(feature.name for feature in features.lists))]
    keys += [(sequence_column(name), features.sequence_table(name)) for name in features.sequence_names]
    for column, table in keys:
        if table in columns:
            columns[table].append(column)
    found = {table: [(np.zeros(0, dtype=np.int64), np.zeros(0, dtype=np.int64))] for table in columns}
    for uri in uris:
        for part in parquet_files.read_parquet_batches(uri, _EXAMPLES_AT_ONCE, [*chain(*columns.values())]):
            for table, names in columns.items():
                ids = np.concatenate([_flat(part[name]) for name in names]) % NUM_HASHES
                found[table].append(np.unique(ids, return_counts=True))
    return {table: added_up(*map(np.concatenate, zip(*parts, strict=True))) for table, parts in found.items()}


def _flat(column: pa.ChunkedArray) -> np.ndarray:
    together = column.combine_chunks()
    return (together.flatten() if pa.types.is_list(together.type) else together).to_numpy(zero_copy_only=False)
