"""Optimizers that update the rows of a batch only: their cost follows the batch, not the table."""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
from torch import Tensor, distributed

from components.tables.config import OptimizerConfig
from components.tables.row_frequencies import RowFrequencies, frequency_factors
from components.tables.rows import RowGradients


class RowOptimizer(ABC):
    """What lazy optimizers share: row frequencies, and the rates that follow from them."""

    def __init__(
        self,
        weight: Tensor,
        table_rows: list[int],
        config: OptimizerConfig,
        group: distributed.ProcessGroup | None = None,
    ) -> None:
        """Optimize a weight in place.

        Args:
            weight: All rows of the tables, or those that this process holds; shape (rows, dim).
            table_rows: How many of them belong to each table, or part of one whose frequencies are compared, in order.
            config: The recipe.
            group: The processes that hold the tables' rows together; all of them take every step.
        """
        if len(weight) >= 2**31:
            raise ValueError(f"{len(weight)} rows: {config.tables} takes fewer than 2^31; make the tables smaller")
        self._weight, self._config, self._group = weight, config, group
        self.frequencies = RowFrequencies(table_rows, weight.device, group) if config.counts_rows else None
        self._start()

    @abstractmethod
    def _start(self) -> None:
        """Make the state of a new optimizer."""

    @torch.no_grad()
    def step(self, *parts: RowGradients) -> None:
        """Update from what one batch asks; at least one part."""
        found = RowGradients.together(parts).distinct()
        self._update(found.rows, found.sums, self._factors(found.rows, found.counts))

    @abstractmethod
    def _update(self, rows: Tensor, gradients: Tensor, factors: Tensor | None) -> None:
        """Update some rows, with factors of shape (u, 1) on their rates, or none."""

    def _factors(self, rows: Tensor, counts: Tensor) -> Tensor | None:
        if self.frequencies is None:
            return None
        adaptive, tables = self._config.frequency_adaptive, self.frequencies.table_of(rows)
        counted_ahead = adaptive is not None and adaptive.counts == "precomputed"
        frequencies = self.frequencies.of(rows) if counted_ahead else self.frequencies.add(rows, counts, tables)
        if adaptive is None:
            return None
        return frequency_factors(frequencies, tables, self.frequencies, adaptive.scaling)[:, None]

    @torch.no_grad()
    def count(self, rows: Tensor, counts: Tensor) -> None:
        """Count look-ups of different rows ahead of training (`counts: precomputed`); int64, shape (u,) each."""
        assert self.frequencies is not None
        self.frequencies.add(rows, counts, self.frequencies.table_of(rows))

    @torch.no_grad()
    def forget(self, rows: Tensor) -> None:
        """Reset the state of some rows, as redrawn ones need, but not their frequencies; bool, shape (all rows,)."""
        everywhere = rows.all().to(torch.int32)
        if self._group is not None:
            distributed.all_reduce(everywhere, distributed.ReduceOp.MIN, group=self._group)
        self._forget(rows, bool(everywhere))

    @abstractmethod
    def _forget(self, rows: Tensor, everywhere: bool) -> None:
        """Reset the state of some rows; `everywhere` says whether they are all of all processes."""

    @property
    def row_state(self) -> dict[str, Tensor]:
        """State with one entry a row, by name."""
        return {} if self.frequencies is None else {"row_frequency": self.frequencies.all}

    @property
    def table_state(self) -> dict[str, Tensor]:
        """State with one entry a table or one in all, by name."""
        return {} if self.frequencies is None else {"largest_frequency": self.frequencies.largest}

    def state_tensors(self) -> dict[str, Tensor]:
        """Everything that a checkpoint must hold."""
        return self.row_state | self.table_state

    def load_state_tensors(self, state: dict[str, Tensor]) -> None:
        """Take over `state_tensors` of the same configuration."""
        for name, own in self.state_tensors().items():
            saved = state[name]
            # torch copies no uint32: the bits go over as int32.
            (own.view(torch.int32) if own.dtype == torch.uint32 else own).copy_(
                saved.view(torch.int32) if saved.dtype == torch.uint32 else saved
            )
