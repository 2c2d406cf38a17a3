"""Rows of the tables between processes: who holds which, and the way of a batch's rows to their owners and back."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, distributed

from components.tables.rows import DistinctRows, RowGradients


@dataclass(frozen=True, order=True)
class Shard:
    """A run of rows that one process holds.

    Attributes:
        first_row: Where it begins in the weight of all tables.
        num_rows: How many rows it has.
        rank: The process.
        table: The table that all its rows belong to.
    """

    first_row: int
    num_rows: int
    rank: int
    table: str


class ShardLayout:
    """Which process holds which rows; each keeps its rows in one weight, in their global order."""

    def __init__(self, shards: list[Shard], device: torch.device) -> None:
        """Take shards that cover all rows once; those without rows are left out."""
        self.shards = sorted(shard for shard in shards if shard.num_rows > 0)
        held: dict[int, int] = {}
        places = []
        self.num_rows = 0
        for shard in self.shards:
            assert shard.first_row == self.num_rows, f"shards overlap, or leave rows out, before {shard}"
            places.append(held.get(shard.rank, 0))
            held[shard.rank] = places[-1] + shard.num_rows
            self.num_rows += shard.num_rows
        if self.num_rows >= 2**31:
            raise ValueError(f"{self.num_rows} rows: rows are sorted as int32; make features.categorical smaller")
        self._first_rows = torch.tensor([shard.first_row for shard in self.shards], device=device)
        self._ranks = torch.tensor([shard.rank for shard in self.shards], device=device)
        self._shifts = torch.tensor(places, device=device) - self._first_rows

    def of_rank(self, rank: int) -> list[Shard]:
        """The shards of one process, in the order of its weight."""
        return [shard for shard in self.shards if shard.rank == rank]

    def owners(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        """The process that holds each row, and the row's place in that process's weight; int64, shape (m,)."""
        shards = torch.searchsorted(self._first_rows, rows, right=True) - 1
        return self._ranks.index_select(0, shards), rows + self._shifts.index_select(0, shards)

    def take(self, full: Tensor, rank: int) -> Tensor:
        """The rows of one process out of all; a copy."""
        parts = [full[shard.first_row : shard.first_row + shard.num_rows] for shard in self.of_rank(rank)]
        return torch.cat(parts) if parts else full[:0].clone()

    def put(self, full: Tensor, part: Tensor, rank: int) -> None:
        """Write the rows of one process among all."""
        shards = self.of_rank(rank)
        for shard, rows in zip(shards, part.split([shard.num_rows for shard in shards]), strict=True):
            full[shard.first_row : shard.first_row + shard.num_rows].copy_(rows)


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
