"""Linear layers of the same inputs as one product, in shapes that matrix products are fast in."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

# Numbers of inputs and of outputs are filled up to multiples of these, with zeros: lines of memory, and registers.
_INPUTS, _OUTPUTS = 16, 8


def filled_up(parts: Sequence[Tensor]) -> Tensor:
    """Put parts of shape (n, width) each side by side, and zeros behind them."""
    width = sum(part.shape[1] for part in parts)
    return torch.cat([*parts, parts[0].new_zeros(len(parts[0]), -width % _INPUTS)], dim=1)


def joint_linear(inputs: Tensor, layers: Sequence[nn.Linear]) -> list[Tensor]:
    """What each layer gives of the first columns of its inputs, (n, width) to (n, out) each."""
    outputs = [layer.out_features for layer in layers]
    weights = [functional.pad(layer.weight, (0, inputs.shape[1] - layer.in_features)) for layer in layers]
    weight = functional.pad(torch.cat(weights), (0, 0, 0, -sum(outputs) % _OUTPUTS))
    bias = functional.pad(torch.cat([layer.bias for layer in layers]), (0, -sum(outputs) % _OUTPUTS))
    made = functional.linear(inputs, weight, bias).split([*outputs, len(bias) - sum(outputs)], dim=1)
    return [*made[: len(layers)]]
