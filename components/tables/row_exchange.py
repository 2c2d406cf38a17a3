"""The way of a batch's rows to the processes that hold them, and back."""

from __future__ import annotations

import torch
from torch import Tensor, distributed

from components.tables.rows import DistinctRows, RowGradients
from components.tables.shard_layout import ShardLayout


class RowExchange:
    """The way of one batch's distinct rows to their owners and back; every process makes one at the same time.

    Attributes:
        distinct: This process's look-ups.
        rows: Rows of the local weight that each process in turn asks for, ascending within each; int64, shape (r,).
        counts: How often it looks each of them up, int64, shape (r,).
    """

    def __init__(self, rows: Tensor, counts: bool, layout: ShardLayout, group: distributed.ProcessGroup) -> None:
        """Ask the owners for the rows of this process's look-ups; int64, shape (m,), and whether they count."""
        self._group, self.distinct = group, DistinctRows.of(rows)
        ranks, places = layout.owners(self.distinct.rows)
        self._by_owner = torch.sort(ranks, stable=True).indices
        asked = torch.bincount(ranks, minlength=group.size())
        asking = torch.empty_like(asked)
        distributed.all_to_all_single(asking, asked, group=group)
        # The sizes of what is sent must be known to the host: one synchronization a look-up on a GPU.
        self._asked, self._asking = asked.tolist(), asking.tolist()
        received = self.to_owners(torch.stack([places, self.distinct.counts * counts], dim=1))
        self.rows, self.counts = received.unbind(dim=1)

    def to_owners(self, values: Tensor) -> Tensor:
        """Send a value of each distinct row, shape (u, ...), to its owner; gives those of `rows`, shape (r, ...)."""
        received = values.new_empty(sum(self._asking), *values.shape[1:])
        sent = values.index_select(0, self._by_owner)
        distributed.all_to_all_single(received, sent, self._asking, self._asked, group=self._group)
        return received

    def by_sender(self, sums: Tensor) -> list[RowGradients]:
        """What each process asks of the local rows; `sums` is what `to_owners` gave, shape (r, dim)."""
        parts = zip(*(values.split(self._asking) for values in (self.rows, self.counts, sums)), strict=True)
        return [RowGradients(*part) for part in parts]

    def from_owners(self, values: Tensor) -> Tensor:
        """Answer with a value of each of `rows`, shape (r, dim); gives those of the distinct rows, shape (u, dim)."""
        received = values.new_empty(len(self._by_owner), *values.shape[1:])
        distributed.all_to_all_single(received, values, self._asked, self._asking, group=self._group)
        return torch.empty_like(received).index_copy_(0, self._by_owner, received)
