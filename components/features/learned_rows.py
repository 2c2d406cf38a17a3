"""Tables whose rows training gives to ids as it meets them, whatever the rule."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeAlias

from components.features.exact_ids import ExactIds, IdIndex, Vocabulary
from components.features.quantiles import LearnedQuantiles, QuantileIndex, Quantiles

# How a feature's ids come by their rows; what is known while they do; and which row each id has in the end.
RowRule: TypeAlias = ExactIds | Quantiles
LearnedRows: TypeAlias = Vocabulary | LearnedQuantiles
RowIndex: TypeAlias = IdIndex | QuantileIndex

NO_INDEXES: Mapping[str, RowIndex] = {}
