"""Adam over the table rows of a batch, with frequency-adaptive learning rates (FAL)."""

from __future__ import annotations

import torch
from torch import Tensor

from components.train.config import OptimizerConfig

_UINT32 = 2**32


class RowFrequencies:
    """How often each row was looked up: uint32, which stays at its maximum, and the largest count of each table.

    Counts never fall, so the maximum is kept as a running value and costs nothing.
    """

    def __init__(self, table_rows: list[int]) -> None:
        """Start at zero; `table_rows` are the tables' sizes in their order."""
        ends = torch.tensor(table_rows).cumsum(0)
        self._last_rows = ends - 1
        # torch has few operations on uint32: the same bits are kept as int32.
        self._bits = torch.zeros(int(ends[-1]), dtype=torch.int32)
        self.largest = torch.zeros(len(table_rows), dtype=torch.int64)

    def add(self, rows: Tensor, counts: Tensor) -> None:
        """Count look-ups of distinct rows; both int64, shape (m,)."""
        total = (self.of(rows) + counts).clamp(max=_UINT32 - 1)
        self._bits[rows] = torch.where(total >= _UINT32 // 2, total - _UINT32, total).to(torch.int32)
        self.largest.scatter_reduce_(0, self._table_of(rows), total, "amax")

    def of(self, rows: Tensor) -> Tensor:
        """Counts of some rows, int64, shape (m,)."""
        return self._bits.index_select(0, rows).to(torch.int64) % _UINT32

    def largest_beside(self, rows: Tensor) -> Tensor:
        """The largest count in each row's own table, int64, shape (m,)."""
        return self.largest[self._table_of(rows)]

    def _table_of(self, rows: Tensor) -> Tensor:
        return torch.searchsorted(self._last_rows, rows)

    @property
    def all(self) -> Tensor:
        """Counts of all rows, uint32."""
        return self._bits.view(torch.uint32)

    def load(self, counts: Tensor, largest: Tensor) -> None:
        """Take over saved counts."""
        self._bits.copy_(counts.view(torch.int32))
        self.largest.copy_(largest)


def frequency_factors(counts: Tensor, largest: Tensor, scaling: str) -> Tensor:
    """Alpha = log(1 + F) / max_j log(1 + F_j), or F / max_j F_j (Qiu et al. 2025, equation 1 and table 1).

    Args:
        counts: F of m rows, int64.
        largest: The largest F of each row's table, int64, shape (m,).
        scaling: `log` or `linear`.

    Returns:
        float32, shape (m,), in [0, 1].
    """
    some = largest.clamp(min=1).to(torch.float64)
    if scaling == "linear":
        return (counts / some).to(torch.float32)
    return (torch.log1p(counts.to(torch.float64)) / torch.log1p(some)).to(torch.float32)


def sum_by_row(rows: Tensor, gradients: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Add up the gradients of equal rows.

    Args:
        rows: int64, shape (m,), below 2^31.
        gradients: Shape (m, dim).

    Returns:
        The distinct rows in ascending order, how often each occurs, and the sums; shapes (u,), (u,), (u, dim).
    """
    # A stable sort of int32 and a segment sum by embedding_bag: several times faster than unique and index_add.
    ordered, order = torch.sort(rows.to(torch.int32), stable=True)
    is_first = torch.ones(len(rows), dtype=torch.bool)
    torch.ne(ordered[1:], ordered[:-1], out=is_first[1:])
    starts = is_first.nonzero().view(-1)
    counts = torch.diff(starts, append=torch.tensor([len(rows)]))
    sums = torch.nn.functional.embedding_bag(order, gradients, starts, mode="sum")
    return ordered.index_select(0, starts).to(torch.int64), counts, sums


class LazyAdam:
    """Adam that updates the rows of a batch only: its cost follows the batch, not the table.

    Rows that are not in a batch keep their weights and moments, unlike under dense Adam, whose rows go on moving by
    their old moments. With `bias_correction: global` the moments are corrected by the number of all steps, as in
    FBGEMM; with `row` by the number of updates of the row itself.
    """

    def __init__(self, weight: Tensor, table_rows: list[int], config: OptimizerConfig) -> None:
        """Optimize `weight`, shape (rows, dim), in place; `table_rows` are its tables' sizes in their order."""
        if len(weight) >= 2**31:
            raise ValueError(f"{len(weight)} rows: lazy Adam takes fewer than 2^31; make features.categorical smaller")
        self._weight, self._config = weight, config
        self.exp_avg, self.exp_avg_sq = torch.zeros_like(weight.detach()), torch.zeros_like(weight.detach())
        self.step_count = torch.zeros((), dtype=torch.int64)
        self.row_steps = torch.zeros(len(weight) if config.bias_correction == "row" else 0, dtype=torch.int32)
        self.frequencies = RowFrequencies(table_rows) if config.counts_rows else None

    @torch.no_grad()
    def step(self, rows: Tensor, gradients: Tensor) -> None:
        """Update from the look-ups of one batch; int64, shape (m,), and shape (m, dim)."""
        config = self._config
        distinct, counts, summed = sum_by_row(rows, gradients)
        factors: Tensor | None = None
        if self.frequencies is not None:
            if config.frequency_adaptive is None or config.frequency_adaptive.counts == "accumulated":
                self.frequencies.add(distinct, counts)
            if config.frequency_adaptive is not None:
                found, largest = self.frequencies.of(distinct), self.frequencies.largest_beside(distinct)
                factors = frequency_factors(found, largest, config.frequency_adaptive.scaling)[:, None]
        if factors is not None and config.frequency_adaptive and config.frequency_adaptive.apply_to == "gradient":
            summed, factors = summed * factors, None
        beta1, beta2 = config.betas
        first = self.exp_avg.index_select(0, distinct).lerp_(summed, 1 - beta1)
        second = self.exp_avg_sq.index_select(0, distinct).mul_(beta2).addcmul_(summed, summed, value=1 - beta2)
        self.exp_avg.index_copy_(0, distinct, first)
        self.exp_avg_sq.index_copy_(0, distinct, second)
        self.step_count += 1
        size, scale = self._corrections(distinct)
        update = first / (second.mul_(scale).sqrt_().add_(config.eps)) * size
        update.mul_(config.learning_rate * config.table_multiplier)
        if factors is not None:
            update.mul_(factors)
        self._weight.index_copy_(0, distinct, self._weight.index_select(0, distinct).sub_(update))

    def _corrections(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        """1 / (1 - beta1^t) and 1 / (1 - beta2^t), of shape () or (u, 1)."""
        if len(self.row_steps):
            self.row_steps[rows] += 1
            steps = self.row_steps[rows].to(torch.float64)[:, None]
        else:
            steps = self.step_count.to(torch.float64)
        beta1, beta2 = self._config.betas
        return (1 / (1 - beta1**steps)).to(torch.float32), (1 / (1 - beta2**steps)).to(torch.float32)

    @torch.no_grad()
    def count(self, rows: Tensor) -> None:
        """Count the look-ups of all examples before training on them (`counts: precomputed`); int64, shape (m,)."""
        assert self.frequencies is not None
        distinct, counts = torch.unique(rows, return_counts=True)
        self.frequencies.add(distinct, counts)

    @torch.no_grad()
    def forget(self, rows: Tensor) -> None:
        """Reset the moments of some rows, and with all of them the count of steps; bool, shape (all rows,)."""
        self.exp_avg[rows], self.exp_avg_sq[rows] = 0.0, 0.0
        if len(self.row_steps):
            self.row_steps[rows] = 0
        if rows.all():
            self.step_count.zero_()

    def state_tensors(self) -> dict[str, Tensor]:
        """Everything that a checkpoint must hold."""
        state = {"exp_avg": self.exp_avg, "exp_avg_sq": self.exp_avg_sq, "step": self.step_count}
        if len(self.row_steps):
            state["row_steps"] = self.row_steps
        if self.frequencies is not None:
            state |= {"row_frequency": self.frequencies.all, "largest_frequency": self.frequencies.largest}
        return state

    def load_state_tensors(self, state: dict[str, Tensor]) -> None:
        """Take over `state_tensors` of the same configuration."""
        self.exp_avg.copy_(state["exp_avg"])
        self.exp_avg_sq.copy_(state["exp_avg_sq"])
        self.step_count.copy_(state["step"])
        if len(self.row_steps):
            self.row_steps.copy_(state["row_steps"])
        if self.frequencies is not None:
            self.frequencies.load(state["row_frequency"], state["largest_frequency"])
