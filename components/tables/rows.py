"""The rows that a batch looks up, and what it asks of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional


@dataclass(frozen=True)
class DistinctRows:
    """Which rows m look-ups take, u of them different.

    Attributes:
        rows: The different rows, ascending, int64, shape (u,).
        counts: How often each is looked up, int64, shape (u,).
        inverse: Place in `rows` of every look-up, int64, shape (m,).
        order: Look-ups ordered by row, int64, shape (m,).
        starts: Where each row's look-ups start in `order`, int64, shape (u,).
    """

    rows: Tensor
    counts: Tensor
    inverse: Tensor
    order: Tensor
    starts: Tensor

    @classmethod
    def of(cls, look_ups: Tensor) -> DistinctRows:
        """Sort look-ups; int64, shape (m,), each below 2^31."""
        # A stable sort of int32 is a radix sort: several times faster than `torch.unique`.
        ordered, order = torch.sort(look_ups.to(torch.int32), stable=True)
        is_first = torch.ones_like(ordered, dtype=torch.bool)
        torch.ne(ordered[1:], ordered[:-1], out=is_first[1:])
        starts = is_first.nonzero().view(-1)
        counts = torch.diff(starts, append=starts.new_tensor([len(ordered)]))
        inverse = torch.empty_like(order)
        inverse[order] = is_first.cumsum(0) - 1
        return cls(ordered.index_select(0, starts).to(torch.int64), counts, inverse, order, starts)

    def expand(self, vectors: Tensor) -> Tensor:
        """Vectors of the different rows, (u, dim), to vectors of all look-ups, (m, dim); differentiable."""
        return _Expand.apply(vectors, self)

    def sum(self, of_look_ups: Tensor) -> Tensor:
        """Add up what equal rows have, (m, dim) to (u, dim)."""
        if len(self.rows) == 0:
            return of_look_ups.new_zeros(0, of_look_ups.shape[1])
        # As a segment sum, embedding_bag is several times faster than index_add.
        return functional.embedding_bag(self.order, of_look_ups, self.starts, mode="sum")


class RowGradients(NamedTuple):
    """What a batch, or a part of it, asks of some rows.

    Attributes:
        rows: Some rows, which may repeat, int64, shape (m,).
        counts: How many look-ups each stands for, int64, shape (m,).
        sums: The gradients of these look-ups, summed; shape (m, dim).
    """

    rows: Tensor
    counts: Tensor
    sums: Tensor

    @classmethod
    def together(cls, parts: Sequence[RowGradients]) -> RowGradients:
        """Put parts that may share rows behind each other; at least one."""
        return parts[0] if len(parts) == 1 else cls(*(torch.cat(column) for column in zip(*parts, strict=True)))

    def distinct(self) -> RowGradients:
        """The same with each row once, ascending."""
        distinct = DistinctRows.of(self.rows)
        total = torch.zeros_like(distinct.rows).index_add_(0, distinct.inverse, self.counts)
        return RowGradients(distinct.rows, total, distinct.sum(self.sums))


class _Expand(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, vectors: Tensor, distinct: DistinctRows) -> Tensor:
        ctx.distinct = distinct
        return vectors.index_select(0, distinct.inverse)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradients: Tensor) -> tuple[Tensor, None]:
        return ctx.distinct.sum(gradients.contiguous()), None
