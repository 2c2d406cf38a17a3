"""Row-wise Adagrad over the table rows of a batch, by FBGEMM: the default of TorchRec, to compare with."""

from __future__ import annotations

import torch
from fbgemm_gpu.split_table_batched_embeddings_ops_common import EmbeddingLocation, PoolingMode
from fbgemm_gpu.split_table_batched_embeddings_ops_training import (
    ComputeDevice,
    OptimType,
    SplitTableBatchedEmbeddingBagsCodegen,
)
from torch import Tensor

from components.tables.row_optimizer import RowOptimizer


class RowwiseAdagrad(RowOptimizer):
    """Adagrad with one sum of squares a row: the mean over the row's gradient (FBGEMM's EXACT_ROWWISE_ADAGRAD).

    FBGEMM updates in its backward pass. Frequency-adaptive rates then go the part alpha of the way from the old row
    to the new one, which is alpha times the update.
    """

    def _start(self) -> None:
        weight, config = self._weight, self._config
        self.fbgemm: SplitTableBatchedEmbeddingBagsCodegen | None = None
        if len(weight) == 0:
            return
        on_gpu = weight.device.type == "cuda"
        place = EmbeddingLocation.DEVICE if on_gpu else EmbeddingLocation.HOST
        self.fbgemm = SplitTableBatchedEmbeddingBagsCodegen(
            [(*weight.shape, place, ComputeDevice.CUDA if on_gpu else ComputeDevice.CPU)],
            optimizer=OptimType.EXACT_ROWWISE_ADAGRAD,
            learning_rate=config.learning_rate * config.table_multiplier,
            eps=config.eps,
            pooling_mode=PoolingMode.SUM,
            device=weight.device,
        )
        shared = self.fbgemm.weights_dev if on_gpu else self.fbgemm.weights_host
        shared.data = weight.detach().view(-1)

    @property
    def sum_of_squares(self) -> Tensor:
        """Adagrad's state, shape (rows,)."""
        if self.fbgemm is None:
            return self._weight.new_zeros(0)
        return self.fbgemm.split_optimizer_states()[0][0]

    def _update(self, rows: Tensor, gradients: Tensor, factors: Tensor | None) -> None:
        if self.fbgemm is None:
            return
        before = None if factors is None else self._weight.index_select(0, rows)
        with torch.enable_grad():
            looked_up = self.fbgemm(rows, torch.arange(len(rows) + 1, device=rows.device))
        looked_up.backward(gradients)
        if before is not None and factors is not None:
            after = self._weight.index_select(0, rows)
            self._weight.index_copy_(0, rows, before.lerp_(after, factors))

    def _forget(self, rows: Tensor, everywhere: bool) -> None:
        """Reset sums."""
        self.sum_of_squares[rows] = 0.0

    @property
    def row_state(self) -> dict[str, Tensor]:
        """Sums of squares; frequencies where they are kept."""
        return {"sum_of_squares": self.sum_of_squares} | super().row_state
