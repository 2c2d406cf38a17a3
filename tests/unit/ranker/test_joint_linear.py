"""Layers as one product, against the layers one by one."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from components.ranker.config import ModelConfig
from components.ranker.joint_linear import filled_up, joint_linear
from components.ranker.ranker import RankerNet


@pytest.mark.parametrize(("widths", "outputs"), [((16,), (8,)), ((3, 10, 6), (5, 2, 1))])
def test_outputs_and_gradients_are_those_of_the_layers(widths, outputs):
    torch.manual_seed(0)
    parts = [torch.randn(7, width, requires_grad=True) for width in widths]
    together = torch.cat(parts, dim=1)
    layers = [nn.Linear(together.shape[1] - number, out) for number, out in enumerate(outputs)]
    expected = [layer(together[:, : layer.in_features]) for layer in layers]
    found = joint_linear(filled_up(parts), layers)
    weights = [torch.randn(7, out) for out in outputs]
    gradients = []
    for made in (expected, found):
        total = sum((values * weight).sum() for values, weight in zip(made, weights, strict=True))
        leaves = [*parts, *(parameter for layer in layers for parameter in layer.parameters())]
        gradients.append(torch.autograd.grad(total, leaves))
    for one, other in (*zip(found, expected, strict=True), *zip(*gradients, strict=True)):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("dhen", [None, {"num_layers": 1, "hidden_size": 8}])
def test_a_net_in_training_gives_what_it_gives_in_evaluation(small_config, dhen):
    torch.manual_seed(0)
    features, config = small_config.features, ModelConfig.parse({"dhen": dhen, "dropout": 0.0}, "model")
    net = RankerNet(features, config)
    nn.init.normal_(net.wide.weight)
    num_sequence = features.num_vectors(features.sequence_tables)
    inputs = (
        torch.randn(9, features.num_vectors(features.categorical_tables), config.embedding_dim),
        torch.rand(9, len(features.dense_names)) * 10,
        torch.randn(9, features.sequence.length, config.embedding_dim * num_sequence),
        torch.arange(9) % (features.sequence.length + 1),
    )
    torch.testing.assert_close(net.train()(*inputs), net.eval()(*inputs), rtol=1e-4, atol=1e-5)
