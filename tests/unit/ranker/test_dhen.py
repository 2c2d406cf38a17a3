"""MaskNet and DHEN against their equations, and the whole ranker with them."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional

from components.common.errors import InputError
from components.features.examples import TRAINING, read_examples
from components.ranker.config import DhenConfig, ModelConfig
from components.ranker.dataset import tensors_of
from components.ranker.dhen import Dhen, DhenLayer
from components.ranker.masknet import MaskBlock
from components.ranker.ranker import LogitCorrection, Ranker
from tests.unit.export.served import predict_as_served


def test_mask_block_follows_its_equations():
    torch.manual_seed(0)
    block, vectors = MaskBlock(2, 3, 4), torch.randn(5, 2, 3)
    first, _, second = block.mask
    mask = functional.relu(vectors.flatten(1) @ first.weight.T + first.bias) @ second.weight.T + second.bias
    normal = (vectors - vectors.mean(2, keepdim=True)) / (vectors.var(2, keepdim=True, correction=0) + 1e-5).sqrt()
    product = (mask * normal.flatten(1)) @ block.project.weight.T
    scaled = (product - product.mean(1, keepdim=True)) / (product.var(1, keepdim=True, correction=0) + 1e-5).sqrt()
    torch.testing.assert_close(block(vectors).flatten(1), functional.relu(scaled), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("ensemble", ["sum", "concatenate"])
def test_layer_is_the_normalised_ensemble_and_residual(ensemble):
    torch.manual_seed(0)
    layer = DhenLayer(3, 4, DhenConfig(ensemble=ensemble, hidden_size=8)).eval()
    vectors = torch.randn(5, 3, 4)
    outputs = [layer.branches[name](vectors) for name in ("transformer", "masknet", "mlp")]
    if ensemble == "sum":
        merged = sum(output / 3 for output in outputs)
    else:
        merged = torch.cat(outputs, dim=2) @ layer.merge.weight.T + layer.merge.bias
    expected = functional.layer_norm(merged + vectors, (4,))
    torch.testing.assert_close(layer(vectors), expected, rtol=1e-5, atol=1e-5)


def test_stack_sees_every_kind_of_feature():
    torch.manual_seed(0)
    stack = Dhen(num_categorical=2, num_dense=3, sequence_dim=5, dim=4, config=DhenConfig(num_layers=2)).eval()
    inputs = [torch.randn(1, 2, 4, requires_grad=True), torch.randn(1, 3, requires_grad=True)]
    inputs.append(torch.randn(1, 5, requires_grad=True))
    stack(*inputs).square().sum().backward()
    assert stack(*inputs).shape == (1, stack.width)
    assert all(tensor.grad is not None and tensor.grad.abs().sum() > 0 for tensor in inputs)


@pytest.fixture(params=["sum", "concatenate"])
def ranker(request, joined):
    torch.manual_seed(0)
    config = ModelConfig(embedding_dim=8, sequence_dim=16, dhen=DhenConfig(ensemble=request.param, hidden_size=16))
    return Ranker(joined.config.features, config).eval()


def test_ranker_with_dhen_trains(joined, ranker):
    table, _ = read_examples(joined.store, TRAINING, joined.batch_days[0])
    examples = tensors_of(table, joined.config.features, unsampled=False)
    optimizer = torch.optim.Adam(ranker.parameters(), lr=3e-3)
    losses, before = [], {name: value.clone() for name, value in ranker.net.dhen.state_dict().items()}
    for _ in range(40):
        optimizer.zero_grad()
        total, _ = ranker.loss(examples.batch(slice(0, 256)), torch.ones(6))
        total.backward()
        optimizer.step()
        losses.append(total.item())
    assert losses[-1] < 0.7 * losses[0]
    still = [name for name, value in ranker.net.dhen.state_dict().items() if torch.equal(value, before[name])]
    assert still == []


def test_exported_dhen_predicts_the_same(joined, ranker):
    features = joined.config.features
    table, _ = read_examples(joined.store, TRAINING, joined.batch_days[0])
    table = table.slice(0, 300)
    served = predict_as_served(ranker, features, table)
    with torch.no_grad():
        batch = tensors_of(table, features, unsampled=True).batch(slice(0, 300))
        expected = LogitCorrection(0.5)(ranker(batch)).numpy()
    assert abs(served - expected).max() < 1e-6


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"embedding_dim": 6, "dhen": {"num_heads": 4}}, "embedding_dim = 6 is not a multiple of num_heads = 4"),
        ({"dhen": {"modules": ["mlp", "mlp"]}}, "names a module twice"),
        ({"dhen": {"modules": ["crossnet"]}}, "modules"),
    ],
)
def test_sizes_that_do_not_fit_are_refused(values, message):
    with pytest.raises(InputError, match=message):
        ModelConfig.parse(values, "model")
