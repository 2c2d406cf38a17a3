"""How often training looked up each row of the tables."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np

from components.common import parquet_files
from components.common.errors import InputError
from components.common.layout import Store
from components.common.lineage import Lineage
from components.common.progress import log_line
from components.features.encoding import encode_categorical, encode_lists, encode_sequences, learned_rows
from components.features.examples import EARLY, TRAINING, example_files
from components.features.feature_list import FeatureConfig, sequence_column
from components.features.learned_rows import NO_INDEXES, RowIndex

_EXAMPLES_AT_ONCE = 65_536


def count_look_ups(
    store: Store, lineage: Lineage, features: FeatureConfig, indexes: Mapping[str, RowIndex] = NO_INDEXES
) -> dict[str, np.ndarray]:
    """Look-ups of each row by the training examples of a checkpoint's days, as far as the store still has them.

    Returns:
        int64, shape (rows,), by table.

    Raises:
        InputError: If the store has none of these days.
    """
    split_of = dict.fromkeys(store.example_days(EARLY), EARLY) | dict.fromkeys(store.example_days(TRAINING), TRAINING)
    days = [day for day in sorted(split_of) if lineage.first_day <= day <= lineage.trained_through]
    if not days:
        raise InputError(
            f"export.int8_share: no training examples of {lineage.first_day} to {lineage.trained_through} in the "
            "store, so that no row's frequency is known; restore them, or set it to 0"
        )
    frequencies = {table: np.zeros(num_rows, dtype=np.int64) for table, num_rows in features.tables.items()}
    for day in days:
        for uri in example_files(store, split_of[day], day):
            for table, rows in _looked_up(uri, features, indexes):
                frequencies[table] += np.bincount(rows, minlength=len(frequencies[table]))
    log_line("export", f"row frequencies of {len(days)} days of training examples, {days[0]} to {days[-1]}")
    return frequencies


def _looked_up(uri: str, features: FeatureConfig, indexes: Mapping[str, RowIndex]) -> Iterator[tuple[str, np.ndarray]]:
    """Tables, and rows that were looked up in them, of one file of examples."""
    sequences = [sequence_column(name) for name in features.sequence_names]
    columns = [*features.categorical_names, *features.list_columns, *sequences]
    for part in parquet_files.read_parquet_batches(uri, _EXAMPLES_AT_ONCE, columns):
        categorical = encode_categorical({name: part[name].to_numpy() for name in features.categorical_names}, features)
        sequence, lengths = encode_sequences({name: part[name].combine_chunks() for name in sequences}, features)
        used = sequence[np.arange(sequence.shape[1]) < lengths[:, None]]
        looked_up = [(features.categorical_names, categorical), (features.sequence_tables, used)]
        positions = encode_lists({name: part[name].combine_chunks() for name in features.list_columns}, features)
        for name, (start, stop) in features.list_positions.items():
            is_used = positions.weights[start:stop] > 0
            looked_up.append(((name,), positions.ids[start:stop][is_used][:, None]))
        for tables, ids in looked_up:
            ids = learned_rows(ids, tables, features, indexes)
            for column, table in enumerate(tables):
                code = features.binary_codes.get(table)
                for rows in code.rows(ids[:, column]) if code else [ids[:, column]]:
                    yield table, rows


def most_frequent(frequencies: np.ndarray, share: float) -> np.ndarray:
    """The rows looked up most often, at most this share of all and none that never was; sorted, int64."""
    count = min(int(share * len(frequencies)), np.count_nonzero(frequencies))
    return np.sort(np.argsort(-frequencies, kind="stable")[:count])
