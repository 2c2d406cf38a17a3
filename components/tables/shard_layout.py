"""Which process holds which rows of the tables."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, distributed


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


@dataclass(frozen=True)
class Piece:
    """What one process holds of a run of rows.

    Attributes:
        rank: The process.
        of_run: Where it lies in the run.
        of_weight: Where it lies in that process's weight.
    """

    rank: int
    of_run: slice
    of_weight: slice


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
        self._places = places
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

    def pieces(self, start: int, stop: int) -> list[Piece]:
        """Who holds the rows `start`..`stop`, in their order."""
        pieces = []
        for shard, place in zip(self.shards, self._places, strict=True):
            first, last = max(start, shard.first_row), min(stop, shard.first_row + shard.num_rows)
            if first < last:
                in_weight = place + first - shard.first_row
                of_weight = slice(in_weight, in_weight + last - first)
                pieces.append(Piece(shard.rank, slice(first - start, last - start), of_weight))
        return pieces


@dataclass(frozen=True)
class HeldRows:
    """The rows that this process holds of all.

    Attributes:
        shards: Who holds which.
        rank: This process.
        group: The processes; None if this one holds all rows.
    """

    shards: ShardLayout
    rank: int = 0
    group: distributed.ProcessGroup | None = None

    @classmethod
    def alone(cls, num_rows: int) -> HeldRows:
        """All rows."""
        return cls(ShardLayout([Shard(0, num_rows, 0, "")], torch.device("cpu")))

    @property
    def num_rows(self) -> int:
        """How many rows this process holds."""
        return sum(shard.num_rows for shard in self.shards.of_rank(self.rank))

    def table_rows(self, tables: dict[str, int]) -> dict[str, int]:
        """How many of the rows of each table it holds; `tables` are the sizes of all, in their order."""
        if self.group is None:
            return dict(tables)
        held = dict.fromkeys(tables, 0)
        for shard in self.shards.of_rank(self.rank):
            held[shard.table] += shard.num_rows
        return held

    def num_rows_in(self, parts: list[tuple[int, int]]) -> list[int]:
        """How many rows it holds of each of some runs of rows."""
        pieces = (self.own_pieces(start, stop) for start, stop in parts)
        return [sum(piece.of_weight.stop - piece.of_weight.start for piece in own) for own in pieces]

    def own_pieces(self, start: int, stop: int) -> list[Piece]:
        """What this process holds of the rows `start`..`stop`."""
        return [piece for piece in self.shards.pieces(start, stop) if piece.rank == self.rank]

    def gather(self, local: Tensor, start: int, stop: int, rank: int) -> Tensor | None:
        """Rows `start`..`stop` on one process, on its host; None on the others; all processes at once.

        Args:
            local: An entry for each row that this process holds, shape (rows, ...).
            start: The first row.
            stop: The row after the last.
            rank: Who gets them.
        """
        pieces = self.shards.pieces(start, stop)
        if len(pieces) == 1 and pieces[0].rank == rank:
            return local[pieces[0].of_weight].detach().cpu() if rank == self.rank else None
        sent = _bits(local.detach())
        run = torch.empty(stop - start, *sent.shape[1:], dtype=sent.dtype) if rank == self.rank else None
        for piece in pieces:
            if run is not None and piece.rank == rank:
                run[piece.of_run].copy_(sent[piece.of_weight])
            elif run is not None:
                received = sent.new_empty(run[piece.of_run].shape)
                distributed.recv(received, group=self.group, group_src=piece.rank)
                run[piece.of_run].copy_(received)
            elif piece.rank == self.rank:
                distributed.send(sent[piece.of_weight].contiguous(), group=self.group, group_dst=rank)
        return None if run is None else run.view(local.dtype)

    def put(self, local: Tensor, run: Tensor, start: int) -> None:
        """Take this process's rows out of a run that begins with row `start`."""
        for piece in self.own_pieces(start, start + len(run)):
            _bits(local)[piece.of_weight].copy_(_bits(run)[piece.of_run])


def _bits(values: Tensor) -> Tensor:
    """The same bits in a type that torch copies and every backend sends, which uint32 is not."""
    return values.view(torch.int32) if values.dtype == torch.uint32 else values
