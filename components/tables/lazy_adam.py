"""Adam over the table rows of a batch."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from components.tables import memory
from components.tables.cpu_rows import CpuRows
from components.tables.row_optimizer import RowOptimizer
from components.tables.rows import RowGradients


class LazyAdam(RowOptimizer):
    """Adam over the rows of a batch.

    Rows that are not in a batch keep their weights and moments, unlike under dense Adam, whose rows go on moving by
    their old moments. With `bias_correction: global` the moments are corrected by the number of all steps, as in
    FBGEMM; with `row` by the number of updates of the row itself.
    """

    def _start(self) -> None:
        weight = self._weight
        self.exp_avg, self.exp_avg_sq = (memory.zeros(*weight.shape, device=weight.device) for _ in range(2))
        self.step_count = torch.zeros((), dtype=torch.int64)
        self._corrects_rows = self._config.bias_correction == "row"
        num_counted = len(weight) if self._corrects_rows else 0
        self._kernel: Callable[..., None] | None = None
        self.row_steps = torch.zeros(num_counted, dtype=torch.int32, device=weight.device)
        self._cpu_rows: CpuRows | None = None
        if weight.is_cuda:
            # Triton comes with torch's CUDA builds only.
            from components.tables.lazy_adam_kernel import update_rows

            self._kernel = update_rows
        elif weight.device.type == "cpu":
            self._cpu_rows = CpuRows(weight, (self.exp_avg, self.exp_avg_sq, self.row_steps), self._config)

    @torch.no_grad()
    def step(self, *parts: RowGradients) -> None:
        """Update from what one batch asks; at least one part."""
        if self._cpu_rows is None:
            super().step(*parts)
            return
        self.step_count += 1
        self._cpu_rows.step(parts, int(self.step_count), self.frequencies)

    def _update(self, rows: Tensor, gradients: Tensor, factors: Tensor | None) -> None:
        config, adaptive = self._config, self._config.frequency_adaptive
        self.step_count += 1
        of_first, of_second = self._corrections(rows)
        rates, on_gradient = of_first * (config.learning_rate * config.table_multiplier), None
        if factors is not None and adaptive is not None and adaptive.apply_to == "gradient":
            on_gradient = factors
        elif factors is not None:
            rates = rates * factors
        if self._kernel is not None:
            of_rows = (torch.ones((), device=rows.device) if on_gradient is None else on_gradient, rates, of_second)
            spread = [factor.to(rows.device).expand(len(rows), 1).reshape(-1) for factor in of_rows]
            state = (self._weight, self.exp_avg, self.exp_avg_sq)
            self._kernel(*state, rows, gradients, spread, config.betas, config.eps)
            return
        beta1, beta2 = config.betas
        if on_gradient is not None:
            gradients = gradients * on_gradient
        first = self.exp_avg.index_select(0, rows).lerp_(gradients, 1 - beta1)
        self.exp_avg.index_copy_(0, rows, first)
        second = self.exp_avg_sq.index_select(0, rows).mul_(beta2).addcmul_(gradients, gradients, value=1 - beta2)
        self.exp_avg_sq.index_copy_(0, rows, second)
        update = first.div_(second.mul_(of_second).sqrt_().add_(config.eps)).mul_(rates)
        self._weight.index_copy_(0, rows, self._weight.index_select(0, rows).sub_(update))

    def _corrections(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        """1 / (1 - beta1^t) and 1 / (1 - beta2^t), of shape () or (u, 1)."""
        if self._corrects_rows:
            self.row_steps[rows] += 1
            steps = self.row_steps[rows].to(torch.float64)[:, None]
        else:
            steps = self.step_count.to(torch.float64)
        beta1, beta2 = self._config.betas
        return (1 / (1 - beta1**steps)).to(torch.float32), (1 / (1 - beta2**steps)).to(torch.float32)

    def _forget(self, rows: Tensor, everywhere: bool) -> None:
        """Reset moments, and with those of all rows the count of steps."""
        self.exp_avg[rows], self.exp_avg_sq[rows] = 0.0, 0.0
        if self._corrects_rows:
            self.row_steps[rows] = 0
        if everywhere:
            self.step_count.zero_()

    @property
    def row_state(self) -> dict[str, Tensor]:
        """Moments; steps and frequencies where they are kept."""
        state = {"exp_avg": self.exp_avg, "exp_avg_sq": self.exp_avg_sq}
        if self._corrects_rows:
            state["row_steps"] = self.row_steps
        return state | super().row_state

    @property
    def table_state(self) -> dict[str, Tensor]:
        """The number of steps, and the largest frequencies."""
        return {"step": self.step_count} | super().table_state
