"""Embedding tables in one weight, looked up with one gather."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, distributed, nn
from torchrec.sparse.jagged_tensor import KeyedJaggedTensor

from components.features.feature_list import FeatureConfig
from components.tables import cpu_rows, memory
from components.tables.look_ups import KeyLayout, RowMix, double_of
from components.tables.rows import DistinctRows, RowGradients
from components.tables.shard_layout import HeldRows

_BLOCK_ROWS = 65_536


@dataclass
class LookUp:
    """What one batch took from the tables.

    Attributes:
        rows: The rows of the weight, which may repeat, int64, shape (m,).
        vectors: Copies of them that gather the loss's gradient, shape (m, dim).
    """

    rows: Tensor
    vectors: Tensor


class Embeddings(nn.Module):
    """Looks up every categorical feature and sequence column; sequence entities share the impression's own tables.

    All tables lie in one weight, one after the other, so that a look-up and an optimizer's update are one operation
    each, however many tables there are.
    """

    weight: nn.Parameter
    group: distributed.ProcessGroup | None = None

    def __init__(
        self,
        features: FeatureConfig,
        dim: int,
        deviation: float,
        held: HeldRows | None = None,
        doubled: tuple[str, ...] = (),
    ) -> None:
        """Make one table per entry of `features.tables`, with rows of `dim` numbers drawn from N(0, `deviation`^2).

        Given `held`, only those rows are made, with the same values, for `ShardedEmbeddings` to take over. The doubles
        of `doubled` tables begin with zeros.
        """
        super().__init__()
        self.layout, self.deviation = KeyLayout(features, doubled), deviation
        self.table_rows, self.first_rows = self.layout.table_rows, self.layout.first_rows
        self.frequency_rows = [stop - start for start, stop in self.layout.frequency_parts]
        num_rows = sum(self.table_rows.values()) if held is None else held.num_rows
        self.weight = nn.Parameter(memory.zeros(num_rows, dim))
        self.trains_rows = False
        self.look_ups: list[LookUp] = []
        if not self.weight.is_meta:
            self._draw(held)

    @torch.no_grad()
    def _draw(self, held: HeldRows | None) -> None:
        """Draw all rows, table by table, from torch's generator, and keep those held."""
        doubles = {double_of(name) for name in self.layout.doubled}
        drawn_tables = [name for name in self.table_rows if name not in doubles]
        if held is None:
            tables = self.tables()
            for name in drawn_tables:
                tables[name].normal_(std=self.deviation)
            return
        for name in drawn_tables:
            first_row, num_rows = self.first_rows[name], self.table_rows[name]
            # torch draws 16 numbers at a time: so cut, the blocks are what it draws for the whole table.
            starts = [*range(0, max(num_rows - 16, 1), _BLOCK_ROWS)]
            for start, stop in zip(starts, [*starts[1:], num_rows], strict=True):
                drawn = torch.empty(stop - start, self.weight.shape[1]).normal_(std=self.deviation)
                held.put(self.weight, drawn, first_row + start)

    def forward(self, sparse: KeyedJaggedTensor, mix: RowMix | None = None) -> tuple[Tensor, Tensor, Tensor]:
        """Look up a batch; gives what `KeyLayout.arrange` gives."""
        # In parts: one look-up's gradient would have to be put together from theirs.
        return self.layout.arrange([self.look_up(rows) for rows in self.layout.rows(sparse)], sparse, mix)

    def look_up(self, rows: Tensor) -> Tensor:
        """Vectors of rows of the weight, (m,) to (m, dim); in training their gradient is kept for the optimizer."""
        if not (self.training and self.trains_rows and torch.is_grad_enabled()):
            return self.weight.index_select(0, rows)
        # The gradient stays with the copies: one of the whole weight's shape is never made.
        vectors = look_up_rows(self.weight.detach(), rows).requires_grad_()
        self.look_ups.append(LookUp(rows, vectors))
        return vectors

    def gradients(self) -> list[RowGradients]:
        """What the look-ups since the last call have gathered; those that the loss does not depend on are left out."""
        parts = [
            RowGradients(look_up.rows, torch.ones_like(look_up.rows), look_up.vectors.grad)
            for look_up in self.look_ups
            if look_up.vectors.grad is not None
        ]
        assert parts, "look-ups in training went without a backward pass"
        self.look_ups.clear()
        return parts

    def row_counts(self, sparse: KeyedJaggedTensor) -> tuple[Tensor, Tensor]:
        """The different rows that a batch looks up, and how often; int64, shape (u,) each."""
        distinct = DistinctRows.of(torch.cat(self.layout.rows(sparse)))
        return distinct.rows, distinct.counts

    def tables(self) -> dict[str, Tensor]:
        """The weights of every table by name, shape (rows, dim), as views."""
        return dict(zip(self.table_rows, self.weight.detach().split([*self.table_rows.values()]), strict=True))

    def redraw(self, rows: Tensor, seed: tuple[int, ...]) -> None:
        """Draw some rows anew; bool, shape (all rows,)."""
        redraw_rows(self.weight, rows, 0, self.deviation, seed)


def look_up_rows(weight: Tensor, rows: Tensor) -> Tensor:
    """Copies of some rows of a weight, (m,) to (m, dim)."""
    return cpu_rows.look_up(weight, rows) if rows.device.type == "cpu" else weight.index_select(0, rows)


@torch.no_grad()
def redraw_rows(weight: Tensor, chosen: Tensor, first_row: int, std: float, seed: tuple[int, ...]) -> None:
    """Redraw rows of a part of the weight of all tables, to the same values in whatever parts it is held.

    Every block of rows has a stream of its own, so that a part draws little more than its own rows.

    Args:
        weight: The part, shape (m, dim).
        chosen: Which of its rows to redraw, bool, shape (m,).
        first_row: Row of the whole weight that the part begins with.
        std: Standard deviation of the values.
        seed: At least 0 each.
    """
    dim, last_row = weight.shape[1], first_row + len(weight)
    for block in range(first_row // _BLOCK_ROWS, -(-last_row // _BLOCK_ROWS)):
        start, end = max(first_row, block * _BLOCK_ROWS), min(last_row, (block + 1) * _BLOCK_ROWS)
        part, skipped = slice(start - first_row, end - first_row), start - block * _BLOCK_ROWS
        if not chosen[part].any():
            continue
        # NumPy mixes all of the seed; torch's CPU generator takes 32 bits of it.
        stream = np.random.default_rng([*seed, block])
        drawn = stream.standard_normal((skipped + end - start, dim), dtype=np.float32)[skipped:]
        fresh = torch.from_numpy(drawn).mul_(std).to(weight.device, weight.dtype)
        weight[part] = torch.where(chosen[part, None], fresh, weight[part])
