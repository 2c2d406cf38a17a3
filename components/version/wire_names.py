"""What tensors of a request are called, and what its answer is; light, for clients."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

ACTION_PREFIX = "actions."
# Beside a tensor: which of its values are there.
VALID_SUFFIX = ".valid"
# Beside a tensor of lists, whose values are behind each other: how many of them each list has.
LENGTHS_SUFFIX = ".lengths"


@dataclass(frozen=True)
class Ranking:
    """The answer to a request.

    Attributes:
        version: Whose tables and ranker made it.
        probabilities: Of un-sampled impressions, by served objective, float32, shape (n,) each.
    """

    version: str
    probabilities: dict[str, np.ndarray]
