"""The MaskBlock of MaskNet (Wang et al. 2021, 2102.07619)."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional


class MaskBlock(nn.Module):
    """ReLU(LN(W (V_mask * LN(e)))) with the instance-guided mask V_mask = W2 ReLU(W1 e + b1) + b2 (equations 6, 10)."""

    def __init__(self, width: int, mask_size: int) -> None:
        """Keep the width; `mask_size` is that of the mask's hidden layer."""
        super().__init__()
        self.normalize = nn.LayerNorm(width)
        self.mask = nn.Sequential(nn.Linear(width, mask_size), nn.ReLU(), nn.Linear(mask_size, width))
        self.project = nn.Linear(width, width, bias=False)
        self.normalize_output = nn.LayerNorm(width)

    def forward(self, vectors: Tensor) -> Tensor:
        """(n, width) to (n, width)."""
        masked = self.mask(vectors) * self.normalize(vectors)
        return functional.relu(self.normalize_output(self.project(masked)))
