"""The MaskBlock of MaskNet (Wang et al. 2021, 2102.07619)."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional


class MaskBlock(nn.Module):
    """ReLU(LN(W (V_mask * LN(e)))) with the instance-guided mask V_mask = W2 ReLU(W1 e + b1) + b2.

    e is normalised vector by vector.
    """

    def __init__(self, num_vectors: int, dim: int, mask_size: int) -> None:
        """Keep `num_vectors` vectors of `dim`; `mask_size` is that of the mask's hidden layer."""
        super().__init__()
        width = num_vectors * dim
        self.normalize = nn.LayerNorm(dim)
        self.mask = nn.Sequential(nn.Linear(width, mask_size), nn.ReLU(), nn.Linear(mask_size, width))
        self.project = nn.Linear(width, width, bias=False)
        self.normalize_output = nn.LayerNorm(width)

    def forward(self, vectors: Tensor) -> Tensor:
        """(n, num_vectors, dim) to the same shape."""
        masked = self.mask(vectors.flatten(1)) * self.normalize(vectors).flatten(1)
        return functional.relu(self.normalize_output(self.project(masked))).view_as(vectors)
