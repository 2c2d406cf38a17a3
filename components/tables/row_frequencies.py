"""How often table rows are looked up, and the learning rates that follow from it (FAL)."""

from __future__ import annotations

import torch
from torch import Tensor, distributed

_UINT32 = 2**32


class RowFrequencies:
    """How often each row was looked up: uint32, which stays at its maximum, and the largest count of each table.

    Counts never fall, so the maximum is kept as a running value and costs nothing. Processes that each hold some rows
    of the tables share it.
    """

    def __init__(
        self,
        table_rows: list[int],
        device: torch.device | str = "cpu",
        group: distributed.ProcessGroup | None = None,
    ) -> None:
        """Start at zero; `table_rows` are the tables' sizes here, in their order, and `ends` where they end."""
        ends = torch.tensor(table_rows, device=device).cumsum(0)
        self._last_rows, self._group, self.ends = ends - 1, group, ends.cpu().numpy()
        # torch has few operations on uint32: the same bits are kept as int32.
        self._bits = torch.zeros(int(ends[-1]), dtype=torch.int32, device=device)
        self.largest = torch.zeros(len(table_rows), dtype=torch.int64, device=device)

    def table_of(self, rows: Tensor) -> Tensor:
        """The table of some rows, int64, shape (m,)."""
        return torch.searchsorted(self._last_rows, rows)

    def of(self, rows: Tensor) -> Tensor:
        """Counts of some rows, int64, shape (m,)."""
        return self._bits.index_select(0, rows).to(torch.int64).bitwise_and_(_UINT32 - 1)

    def add(self, rows: Tensor, counts: Tensor, tables: Tensor) -> Tensor:
        """Count look-ups of different rows; all int64, shape (m,).

        Returns:
            Their counts now, int64, shape (m,).
        """
        total = self.of(rows).add_(counts).clamp_(max=_UINT32 - 1)
        # The conversion keeps the low 32 bits.
        self._bits.index_copy_(0, rows, total.to(torch.int32))
        self.raise_largest(self.largest.scatter_reduce(0, tables, total, "amax"))
        return total

    def forget(self, rows: Tensor) -> None:
        """Begin anew for some rows, bool, shape (all rows,); the tables' largest counts stay."""
        self._bits[rows] = 0

    def raise_largest(self, counts: Tensor) -> None:
        """Take in each table's largest count of those added; int64, shape (tables,). All processes at once."""
        torch.maximum(self.largest, counts, out=self.largest)
        if self._group is not None:
            distributed.all_reduce(self.largest, distributed.ReduceOp.MAX, group=self._group)

    def scale(self, scaling: str) -> Tensor:
        """By table what (the logarithms of) its rows' counts are multiplied with; see `frequency_factors`."""
        most = self.largest.clamp(min=1).to(torch.float32)
        return (most.log1p_() if scaling == "log" else most).reciprocal_()

    @property
    def all(self) -> Tensor:
        """Counts of all rows, uint32."""
        return self._bits.view(torch.uint32)


def frequency_factors(counts: Tensor, tables: Tensor, frequencies: RowFrequencies, scaling: str) -> Tensor:
    """Alpha = log(1 + F) / max_j log(1 + F_j), or F / max_j F_j (Qiu et al. 2025, equation 1 and table 1).

    Args:
        counts: F of m rows, int64.
        tables: The table of each, int64, shape (m,).
        frequencies: Knows the largest F of every table.
        scaling: `log` or `linear`.

    Returns:
        float32, shape (m,), in [0, 1].
    """
    some = counts.to(torch.float32)
    return (some.log1p_() if scaling == "log" else some).mul_(frequencies.scale(scaling).index_select(0, tables))
