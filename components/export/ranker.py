"""The part of the model that a ranker server runs."""

from __future__ import annotations

from torch import Tensor, nn

from components.train.model.ranker import LogitCorrection, RankerNet


class ServedRanker(nn.Module):
    """From embedding vectors and dense features to probabilities of un-sampled impressions."""

    def __init__(self, net: RankerNet, negative_keep_rate: float) -> None:
        """Put the correction of down-sampling behind the net."""
        super().__init__()
        self.net = net
        self.correction = LogitCorrection(negative_keep_rate)

    def forward(self, categorical: Tensor, dense: Tensor, sequence: Tensor, lengths: Tensor) -> Tensor:
        """Probabilities, shape (n, objectives); arguments as in `RankerNet.forward`."""
        return self.correction(self.net(categorical, dense, sequence, lengths))
