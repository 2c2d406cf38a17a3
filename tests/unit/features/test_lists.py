"""Lists of identifiers: what stands at which position, and with which weight."""

from __future__ import annotations

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from components.common.errors import InputError
from components.features.encoding import encode_lists
from components.features.events import DatasetConfig
from components.features.feature_checks import check_features
from components.features.feature_list import FeatureConfig

DATASET = {
    "name": "own",
    "first_day": "2026-01-01",
    "context_lists": ["tags", "brands"],
    "context_list_weights": {"tags": "tag_weights"},
    "attribution": {},
}
weighted_lists = st.lists(
    st.lists(st.tuples(st.integers(0, 40), st.sampled_from([0.0, 0.25, 1.0, 8.0])), max_size=5), min_size=1, max_size=6
)


def features_of(**tags) -> FeatureConfig:
    """A feature list with weighted tags and brands by hash."""
    lists = [
        {"name": "tags", "num_rows": 16, "weights": "tag_weights", "length": 3} | tags,
        {"name": "brands", "num_rows": 8, "length": 2, "pooling": "sum"},
    ]
    return FeatureConfig.parse({"categorical": [{"name": "item_id", "num_rows": 2}], "lists": lists}, "features")


@given(weighted_lists, st.sampled_from(["mean", "sum"]))
def test_first_identifiers_with_a_weight_have_the_positions(rows, pooling):
    features = features_of(pooling=pooling)
    columns = {
        "tags": pa.array([[tag for tag, _ in row] for row in rows], pa.list_(pa.int64())),
        "tag_weights": pa.array([[weight for _, weight in row] for row in rows], pa.list_(pa.float32())),
        "brands": pa.array([None if number % 2 else [9, 10, 11] for number in range(len(rows))], pa.list_(pa.int64())),
    }
    positions = encode_lists(columns, features)
    assert positions.ids.shape == positions.weights.shape == (5, len(rows))
    for number, row in enumerate(rows):
        kept = [(tag % 16, weight) for tag, weight in row if weight][:3]
        total = sum(weight for _, weight in kept) if pooling == "mean" else 1.0
        expected = [*((tag, weight / total) for tag, weight in kept), *[(0, 0.0)] * (3 - len(kept))]
        found = zip(positions.ids[:3, number], positions.weights[:3, number], strict=True)
        assert [(int(tag), pytest.approx(float(weight))) for tag, weight in found] == expected
        brands = [] if number % 2 else [(1, 1.0), (2, 1.0)]
        found = zip(positions.ids[3:, number].tolist(), positions.weights[3:, number].tolist(), strict=True)
        assert [*found] == (brands or [(0, 0.0)] * 2)


def test_weight_that_rounds_to_nothing_keeps_its_position():
    columns = {
        "tags": pa.array([[1, 2, 3]]),
        "tag_weights": pa.array([[3e38, 1e-40, 3e38]], pa.list_(pa.float32())),
        "brands": pa.array([[]], pa.list_(pa.int64())),
    }
    weights = encode_lists(columns, features_of()).weights[:3, 0]
    assert (weights > 0).all() and weights.sum() == pytest.approx(1.0)


def test_weights_are_as_many_as_identifiers():
    columns = {"tags": pa.array([[1, 2]]), "tag_weights": pa.array([[1.0]]), "brands": pa.array([[1]])}
    with pytest.raises(ValueError, match="tag_weights has rows with another number of values than tags"):
        encode_lists(columns, features_of())


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"weights": "other"}, "tags.weights: 'other' is not what the data set's context_list_weights has"),
        ({"name": "colors", "weights": None}, "'colors' is not among the data set's context_lists"),
    ],
)
def test_lists_are_those_of_the_data_set(change, said):
    with pytest.raises(ValueError, match=said):
        check_features(features_of(**change), DatasetConfig.parse(DATASET, "dataset"))


def test_lists_that_cannot_be_are_refused():
    with pytest.raises(InputError, match="a list takes num_rows or exact"):
        features_of(num_rows=None, binary_code={"code_bits": 8, "block_bits": 4})
    with pytest.raises(InputError, match="'tag_weights' is the name of two features"):
        features_of(name="tag_weights")
    with pytest.raises(InputError, match="'prices' is not among context_lists"):
        DatasetConfig.parse(DATASET | {"context_list_weights": {"prices": "w"}}, "dataset")
