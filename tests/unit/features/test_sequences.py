"""Columns of earlier actions, padded, against a plain loop over them."""

import numpy as np
import pyarrow as pa
import pytest

from components.features.encoding import encode_sequences
from components.features.feature_list import sequence_column


def _columns(features, lengths):
    draw = np.random.default_rng(3)
    return {
        sequence_column(name): pa.array(
            [draw.integers(0, 2**62, length).tolist() for length in lengths], pa.list_(pa.int64())
        )
        for name in features.sequence_names
    }


def test_rows_are_padded_at_their_end(small_config):
    features = small_config.features
    columns = _columns(features, [2, 0, features.sequence.length, 1])
    ids, lengths = encode_sequences(columns, features)
    assert lengths.tolist() == [2, 0, features.sequence.length, 1]
    expected = np.zeros((4, features.sequence.length, len(features.sequence_names)), dtype=np.int64)
    for position, name in enumerate(features.sequence_names):
        modulus = features.moduli[features.sequence_table(name)]
        for row, values in enumerate(columns[sequence_column(name)].to_pylist()):
            expected[row, : len(values), position] = [value % modulus for value in values]
    assert np.array_equal(ids, expected) and expected.any()
    none, of_none = encode_sequences(_columns(features, []), features)
    assert none.shape == (0, *expected.shape[1:]) and len(of_none) == 0


def test_rows_that_are_too_long_or_of_unequal_columns_are_refused(small_config):
    features = small_config.features
    columns = _columns(features, [1, features.sequence.length + 1])
    with pytest.raises(ValueError, match=f"has {features.sequence.length + 1} values, at most"):
        encode_sequences(columns, features)
    columns = _columns(features, [1, 2])
    last = sequence_column(features.sequence_names[-1])
    columns[last] = pa.array([[5, 6], [7]])
    with pytest.raises(ValueError, match=f"{last} has rows with another number of values than"):
        encode_sequences(columns, features)
