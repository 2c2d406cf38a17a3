"""Lists in the model: one vector a list, the weighted sum of its rows; training moves these rows only."""

from __future__ import annotations

import pyarrow as pa
import pytest
import torch

from components.features.encoding import encode_lists
from components.features.feature_list import FeatureConfig
from components.features.objectives import OBJECTIVES
from components.ranker.config import ModelConfig
from components.ranker.dataset import ExampleSet
from components.ranker.ranker import Ranker

FEATURES = FeatureConfig.parse(
    {
        "categorical": [{"name": "item_id", "num_rows": 4}],
        "lists": [
            {"name": "tags", "num_rows": 6, "weights": "tag_weights", "length": 3},
            {"name": "brands", "num_rows": 5, "length": 2, "pooling": "sum"},
        ],
        "sequence": {"length": 2, "entities": ["item_id"]},
        "counts": {"entities": ["item_id"], "action_types": ["click"], "windows_days": [1]},
        "engagement": {"entities": []},
    },
    "features",
)
TAGS = [[1, 2, 3], [], [5]]
WEIGHTS = [[1.0, 0.0, 3.0], [], [2.0]]
BRANDS = [[4], [0, 4, 1], []]


@pytest.fixture()
def examples() -> ExampleSet:
    columns = {
        "tags": pa.array(TAGS, pa.list_(pa.int64())),
        "tag_weights": pa.array(WEIGHTS, pa.list_(pa.float32())),
        "brands": pa.array(BRANDS, pa.list_(pa.int64())),
    }
    positions = encode_lists(columns, FEATURES)
    ones = torch.ones(3, len(OBJECTIVES))
    return ExampleSet(
        features=FEATURES,
        categorical=torch.cat([torch.tensor([[0], [1], [2]]), torch.from_numpy(positions.ids.T)], dim=1),
        vectors=torch.zeros(3, 0),
        dense=torch.cat([torch.rand(3, len(FEATURES.dense_names)), torch.from_numpy(positions.weights.T)], dim=1),
        sequence=torch.zeros(3, 2, 3, dtype=torch.int64),
        lengths=torch.tensor([0, 2, 1]),
        labels=torch.eye(3, len(OBJECTIVES)),
        masks=ones,
        users=ones[:, 0].long().numpy(),
    )


@pytest.mark.parametrize("dhen", [None, {"num_layers": 1}])
def test_one_vector_a_list_is_the_weighted_sum_of_its_rows(examples, dhen):
    torch.manual_seed(0)
    model = Ranker(FEATURES, ModelConfig(embedding_dim=4, sequence_heads=2, sequence_dim=4, dhen=dhen)).eval()
    batch = examples.batch(slice(None))
    assert batch.sparse["tags"].values().tolist() == [1, 3, 5] and batch.sparse["brands"].lengths().tolist() == [
        1,
        2,
        0,
    ]
    categorical, _, _ = model.vectors(batch)
    pooled, dense = model.net.lists(categorical, batch.dense)
    tables = model.embeddings.tables()
    tags, brands, zeros = tables["tags"], tables["brands"], torch.zeros(4)
    assert torch.allclose(pooled[:, 1], torch.stack([0.25 * tags[1] + 0.75 * tags[3], zeros, tags[5]]))
    assert torch.allclose(pooled[:, 2], torch.stack([brands[4], brands[0] + brands[4], zeros]))
    assert torch.equal(pooled[:, 0], tables["item_id"][:3]) and torch.equal(dense, examples.dense_features)
    assert model(batch).shape == (3, len(OBJECTIVES))


def test_only_rows_of_identifiers_that_count_are_moved(examples):
    model = Ranker(FEATURES, ModelConfig(embedding_dim=4, sequence_heads=2, sequence_dim=4))
    torch.nn.init.normal_(model.net.wide.weight)
    model.embeddings.trains_rows = True
    loss, _ = model.loss(examples.batch(slice(None)), torch.ones(len(OBJECTIVES)))
    loss.backward()
    moved = torch.cat([part.rows[part.sums.abs().sum(1) > 0] for part in model.embeddings.gradients()])
    first = model.embeddings.first_rows
    assert sorted({int(row) - first["tags"] for row in moved if 0 <= row - first["tags"] < 6}) == [1, 3, 5]
    assert sorted({int(row) - first["brands"] for row in moved if 0 <= row - first["brands"] < 5}) == [0, 4]
