"""Embedding tables in one weight, looked up with one gather."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torchrec.sparse.jagged_tensor import KeyedJaggedTensor

from components.common.features import FeatureConfig
from components.train.batch import sparse_keys
from components.train.config import ModelConfig

_ROWS_AT_ONCE = 1_000_000


@dataclass
class LookUp:
    """What one batch took from the tables.

    Attributes:
        rows: Rows of the weight, int64, shape (m,); repeated where a batch repeats them.
        vectors: Copies of these rows that gather the loss's gradient, shape (m, dim).
    """

    rows: Tensor
    vectors: Tensor


class Embeddings(nn.Module):
    """Looks up every categorical feature and sequence column; sequence entities share the impression's own tables.

    All tables lie in one weight, one after the other, so that a look-up and an optimizer's update are one operation
    each, however many tables there are.
    """

    weight: nn.Parameter
    _offsets: Tensor

    def __init__(self, features: FeatureConfig, config: ModelConfig) -> None:
        """Make one table per entry of `features.tables`, drawn from N(0, `embedding_init`^2)."""
        super().__init__()
        self.table_rows = dict(features.tables)
        self.first_rows = dict(zip(self.table_rows, _starts([*self.table_rows.values()]), strict=True))
        self._num_categorical, self._num_sequence = len(features.categorical_names), len(features.sequence_names)
        self._length, self._init = features.sequence.length, config.embedding_init
        keys = sparse_keys(features)
        tables = [*features.categorical_names, *(features.sequence_table(name) for name in features.sequence_names)]
        assert len(keys) == len(tables)
        self.register_buffer("_offsets", torch.tensor([self.first_rows[table] for table in tables]), persistent=False)
        self.weight = nn.Parameter(torch.empty(sum(self.table_rows.values()), config.embedding_dim))
        self.trains_rows = False
        self.look_ups: list[LookUp] = []
        with torch.no_grad():
            for table in self.tables().values():
                table.normal_(std=self._init)

    def rows(self, sparse: KeyedJaggedTensor) -> Tensor:
        """Rows of the weight that a batch looks up, key by key; int64, shape (values,)."""
        per_key = torch.tensor(sparse.length_per_key(), device=sparse.values().device)
        return sparse.values() + self._offsets.repeat_interleave(per_key)

    def forward(self, sparse: KeyedJaggedTensor) -> tuple[Tensor, Tensor, Tensor]:
        """Look up a batch of n rows.

        Returns:
            Categorical vectors (n, C, dim), sequence vectors padded with zeros (n, L, S * dim), lengths (n,).
        """
        rows = self.rows(sparse)
        vectors = self._look_up(rows)
        dim, num_examples = vectors.shape[1], sparse.stride()
        split = self._num_categorical * num_examples
        # One split: each slice of its own would make a gradient of the whole shape.
        of_categorical, of_sequence = vectors.split([split, len(vectors) - split])
        categorical = of_categorical.view(self._num_categorical, num_examples, dim).transpose(0, 1)
        lengths = sparse.lengths()[split : split + num_examples].to(torch.int64)
        used = torch.arange(self._length, device=lengths.device) < lengths[:, None]
        positions = of_sequence.view(self._num_sequence, -1, dim).transpose(0, 1).flatten(1)
        sequence = vectors.new_zeros(num_examples, self._length, self._num_sequence * dim)
        sequence[used] = positions
        return categorical, sequence, lengths

    def _look_up(self, rows: Tensor) -> Tensor:
        if not (self.training and self.trains_rows and torch.is_grad_enabled()):
            return self.weight.index_select(0, rows)
        # The gradient stays with the copies: one of the whole weight's shape is never made.
        vectors = self.weight.detach().index_select(0, rows).requires_grad_()
        self.look_ups.append(LookUp(rows, vectors))
        return vectors

    def tables(self) -> dict[str, Tensor]:
        """The weights of every table by name, shape (rows, dim), as views."""
        return dict(zip(self.table_rows, self.weight.detach().split([*self.table_rows.values()]), strict=True))

    @torch.no_grad()
    def redraw(self, rows: Tensor, generator: torch.Generator) -> None:
        """Draw some rows anew, as at the start; bool, shape (all rows,)."""
        for part, chosen in zip(self.weight.split(_ROWS_AT_ONCE), rows.split(_ROWS_AT_ONCE), strict=True):
            fresh = torch.empty_like(part).normal_(std=self._init, generator=generator)
            part.copy_(torch.where(chosen[:, None], fresh, part))

    def zeros(self, rows: int) -> tuple[Tensor, Tensor]:
        """Categorical and sequence vectors of the shapes that `forward` gives for some number of rows."""
        dim = self.weight.shape[1]
        return (
            torch.zeros(rows, self._num_categorical, dim),
            torch.zeros(rows, self._length, self._num_sequence * dim),
        )


def _starts(sizes: list[int]) -> list[int]:
    return [sum(sizes[:number]) for number in range(len(sizes))]
