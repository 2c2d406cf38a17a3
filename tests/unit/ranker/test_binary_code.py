"""Binary codes: which rows an id has, that ids stay apart, and that torch and the exported version agree."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest
import torch

from components.common.errors import InputError
from components.features.binary_code import BinaryCode
from components.features.feature_list import FeatureConfig
from components.ranker.config import ModelConfig
from components.ranker.dataset import tensors_of
from components.ranker.ranker import LogitCorrection, Ranker
from components.tables.config import OptimizerConfig
from components.tables.optimizer import ModelOptimizer
from tests.unit.export.served import predict_as_served


def code_of(**changes):
    return BinaryCode.parse({"code_bits": 6, "block_bits": 2, **changes}, "code")


@pytest.mark.parametrize(
    ("split", "expected"),
    # 0b110110: neighbouring pairs 10, 01, 11 from the right; bits 3 and 0, 4 and 1, 5 and 2.
    [("succession", [0b10, 4 + 0b01, 8 + 0b11]), ("skip", [0b00, 4 + 0b11, 8 + 0b11])],
)
def test_blocks_worked_by_hand(split, expected):
    code = code_of(split=split)
    assert (code.num_blocks, code.num_rows, code.num_codes) == (3, 12, 64)
    assert [int(rows[0]) for rows in code.rows(np.array([0b110110]))] == expected


@pytest.mark.parametrize("split", ["succession", "skip"])
@pytest.mark.parametrize(("code_bits", "block_bits"), [(6, 2), (7, 3), (7, 7), (10, 4), (5, 4)])
def test_every_code_has_rows_of_its_own(split, code_bits, block_bits):
    code = code_of(split=split, code_bits=code_bits, block_bits=block_bits)
    rows = np.stack(code.rows(np.arange(code.num_codes)), axis=1)
    assert len(np.unique(rows, axis=0)) == code.num_codes
    assert rows.min() >= 0 and rows.max() < code.num_rows
    for number in range(code.num_blocks):
        assert (rows[:, number] >> block_bits == number).all()
    both = torch.stack(code.rows(torch.arange(code.num_codes)), dim=1)
    assert np.array_equal(both.numpy(), rows)


def test_impossible_codes_are_refused():
    with pytest.raises(InputError, match="longer than the code"):
        code_of(code_bits=3, block_bits=4)
    with pytest.raises(InputError, match="one of num_rows, binary_code, exact and quantiles"):
        FeatureConfig.parse({"categorical": [{"name": "item_id"}]}, "features")


def features_with(combine, split="succession"):
    code = {"code_bits": 9, "block_bits": 4, "combine": combine, "split": split}
    return FeatureConfig.parse(
        {
            "categorical": [
                {"name": "surface", "num_rows": 5},
                {"name": "user_id", "binary_code": {**code, "code_bits": 8}},
                {"name": "item_id", "binary_code": code},
                {"name": "campaign_id", "num_rows": 11},
            ],
            "sequence": {"length": 4, "entities": ["item_id", "campaign_id"], "action_types": ["click"]},
            "counts": {"entities": ["item_id"], "action_types": ["click"], "windows_days": [7]},
            "engagement": {"entities": ["item_id"]},
        },
        "features",
    )


def examples_of(features, count=40):
    generator = np.random.default_rng(1)
    columns = {name: generator.integers(-(2**62), 2**62, count) for name in features.categorical_names}
    columns |= {name: generator.normal(size=count).astype(np.float32) for name in features.dense_names}
    lengths = generator.integers(0, features.sequence.length + 1, count)
    for name in features.sequence_names:
        ids = [generator.integers(0, 2**62, length).tolist() for length in lengths]
        columns[f"sequence_{name}"] = pa.array(ids, type=pa.list_(pa.int64()))
    for label in ("clicked", "add_to_carts", "checkouts", "good_clicked"):
        columns[label] = generator.integers(0, 2, count)
    columns["negative_kept"] = np.ones(count, dtype=bool)
    columns["user_hash"] = columns["user_id"]
    return pa.table(columns)


@pytest.mark.parametrize("combine", ["sum", "concatenate"])
def test_vectors_are_those_of_the_blocks(combine):
    features = features_with(combine)
    ranker, table = Ranker(features, ModelConfig(embedding_dim=4)), examples_of(features)
    examples = tensors_of(table, features, unsampled=True)
    categorical, sequence, lengths = ranker.embeddings(examples.batch(slice(None)).sparse)
    tables = ranker.embeddings.tables()
    expected = [tables["surface"][examples.categorical[:, 0]]]
    for column, name in ((1, "user_id"), (2, "item_id")):
        code = features.binary_codes[name]
        blocks = [tables[name][rows] for rows in code.rows(examples.categorical[:, column])]
        expected += blocks if combine == "concatenate" else [sum(blocks)]
    expected.append(tables["campaign_id"][examples.categorical[:, 3]])
    torch.testing.assert_close(categorical, torch.stack(expected, dim=1))
    assert tables["user_id"].shape[0] == 2 * 16 and tables["item_id"].shape[0] == 3 * 16
    row = int(lengths.argmax())
    first = [tables["item_id"][rows] for rows in features.binary_codes["item_id"].rows(examples.sequence[row, 0, 0])]
    width = len(first) if combine == "concatenate" else 1
    found = sequence[row, 0, : width * 4]
    torch.testing.assert_close(found, torch.cat(first) if combine == "concatenate" else sum(first))


@pytest.mark.parametrize("combine", ["sum", "concatenate"])
@pytest.mark.parametrize("split", ["succession", "skip"])
def test_exported_version_predicts_as_torch(combine, split):
    features = features_with(combine, split)
    ranker, table = Ranker(features, ModelConfig(embedding_dim=4)).eval(), examples_of(features)
    predicted = predict_as_served(ranker, features, table)
    with torch.no_grad():
        logits = ranker(tensors_of(table, features, unsampled=True).batch(slice(None)))
    np.testing.assert_allclose(predicted, LogitCorrection(0.5)(logits).numpy(), atol=1e-6)


@pytest.mark.parametrize("tables", ["adam", "lazy_adam"])
def test_all_blocks_learn(tables):
    features = features_with("sum")
    ranker, examples = Ranker(features, ModelConfig(embedding_dim=4)), None
    examples = tensors_of(examples_of(features), features, unsampled=True)
    optimizer = ModelOptimizer(ranker, OptimizerConfig.parse({"tables": tables}, "optimizer"))
    before, batch = ranker.embeddings.weight.detach().clone(), examples.batch(slice(0, 3))
    ranker.train()
    total, _ = ranker.loss(batch, torch.ones(6))
    total.backward()
    optimizer.step()
    moved = (ranker.embeddings.weight != before).any(dim=1).nonzero().view(-1)
    assert torch.equal(moved, torch.cat(ranker.embeddings.layout.rows(batch.sparse)).unique())
