"""One optimizer for the dense net and the embedding tables."""

from __future__ import annotations

from collections.abc import Collection
from itertools import accumulate
from typing import TypeAlias

import torch
from torch import Tensor

from components.common.errors import InputError
from components.tables.config import OptimizerConfig
from components.tables.lazy_adam import LazyAdam
from components.tables.row_optimizer import RowOptimizer
from components.tables.rows import RowGradients
from components.tables.rowwise_adagrad import RowwiseAdagrad
from components.tables.table_model import TABLES_WEIGHT, TableModel

_State: TypeAlias = dict[str, Tensor]
TABLES_PREFIX = "tables/"
_ROW_OPTIMIZERS: dict[str, type[RowOptimizer]] = {"lazy_adam": LazyAdam, "rowwise_adagrad": RowwiseAdagrad}


class ModelOptimizer:
    """Adam on the net; on the tables, at `table_multiplier` times its rate, dense Adam or one of a batch's rows only.

    Dense Adam also moves rows that are not in a batch, by their old moments, at a cost that follows the tables' size.
    """

    def __init__(self, model: TableModel, config: OptimizerConfig, frozen: Collection[str] = ()) -> None:
        """Optimize `model` in place, but for frozen tables, which dense Adam cannot leave alone."""
        self._model, self._config = model, config
        sizes = model.embeddings.table_rows
        ends = dict(zip(sizes, accumulate(sizes.values()), strict=True))
        self._frozen = [(ends[name] - sizes[name], ends[name]) for name in frozen]
        assert not frozen or config.tables != "adam"
        # Decaying biases and normalisations would pull predictions away from the base rates.
        matrices = [parameter for parameter in model.net.parameters() if parameter.dim() > 1]
        others = [parameter for parameter in model.net.parameters() if parameter.dim() <= 1]
        groups = [
            {"params": matrices, "lr": config.learning_rate, "weight_decay": config.weight_decay},
            {"params": others, "lr": config.learning_rate, "weight_decay": 0.0},
        ]
        self.tables: RowOptimizer | None = None
        if config.tables == "adam":
            if model.embeddings.group is not None:
                raise InputError("tables over several processes need optimizer.tables: lazy_adam")
            rate = config.learning_rate * config.table_multiplier
            groups.append({"params": [model.embeddings.weight], "lr": rate, "weight_decay": 0.0})
        else:
            make = _ROW_OPTIMIZERS[config.tables]
            self.tables = make(model.embeddings.weight, model.embeddings.frequency_rows, config, model.embeddings.group)
        model.embeddings.trains_rows = self.tables is not None
        self.dense = torch.optim.AdamW(groups, betas=config.betas, eps=config.eps, fused=True)

    def zero_grad(self) -> None:
        """Forget the last batch's gradients."""
        self.dense.zero_grad(set_to_none=True)
        self._model.embeddings.look_ups.clear()

    def clip_gradients(self, where: str) -> None:
        """Scale the net's gradients down to `max_gradient_norm`, if the recipe has one.

        Raises:
            FloatingPointError: If they are not finite; `where` says at which step.
        """
        if self._config.max_gradient_norm is None:
            return
        norm = torch.nn.utils.clip_grad_norm_(self._model.net.parameters(), self._config.max_gradient_norm)
        if not torch.isfinite(norm):
            raise FloatingPointError(f"{where}: the gradient's norm is {norm}; lower optimizer.learning_rate")

    def step(self) -> None:
        """Update from the gradients of one batch."""
        self.dense.step()
        if self.tables is not None:
            self.tables.step(*map(self._without_frozen, self._model.embeddings.gradients()))

    def _without_frozen(self, found: RowGradients) -> RowGradients:
        for start, stop in self._frozen:
            free = (found.rows < start) | (found.rows >= stop)
            found = found if free.all() else RowGradients(*(values[free] for values in found))
        return found

    def start_epoch(self, epoch: int, seed: int) -> None:
        """Redraw tables before every epoch but the first, if the recipe says so (MEDA, Fan et al. 2024).

        The net keeps its weights and moments; redrawn rows lose their moments. Beyond the paper, rows that were looked
        up more often than `keep_above` may stay as they are.
        """
        if self._config.reinitialize is None or epoch == 0:
            return
        embeddings, keep_above = self._model.embeddings, self._config.reinitialize.keep_above
        rows = torch.ones(len(embeddings.weight), dtype=torch.bool, device=embeddings.weight.device)
        if keep_above is not None:
            assert self.tables is not None and self.tables.frequencies is not None
            rows = self.tables.frequencies.of(torch.arange(len(rows), device=rows.device)) <= keep_above
        self._redraw(rows, (seed, epoch))
        if self.tables is None:
            self.dense.state[embeddings.weight]["step"].zero_()

    def _redraw(self, rows: Tensor, seed: tuple[int, ...]) -> None:
        """Draw rows anew and forget their moments; bool, shape (all rows,)."""
        embeddings = self._model.embeddings
        embeddings.redraw(rows, seed)
        if self.tables is not None:
            self.tables.forget(rows)
        else:
            for name, value in self.dense.state.get(embeddings.weight, {}).items():
                if name != "step":
                    value[rows] = 0.0

    def renew(self, rows: Tensor, seed: tuple[int, ...]) -> None:
        """Make rows new, as another id needs that is given them: numbers, moments and frequencies."""
        self._redraw(rows, seed)
        if self.tables is not None and self.tables.frequencies is not None:
            self.tables.frequencies.forget(rows)

    def state_tensors(self) -> _State:
        """Everything that a checkpoint must hold."""
        names = {id(parameter): name for name, parameter in self._model.named_parameters()}
        state = {
            f"{names[id(parameter)]}/{key}": value
            for parameter, values in self.dense.state.items()
            for key, value in values.items()
        }
        if self.tables is not None:
            state |= {TABLES_PREFIX + key: value for key, value in self.tables.state_tensors().items()}
        return state

    def is_by_row(self, name: str) -> bool:
        """Whether a tensor of `state_tensors` has an entry for each row of the tables."""
        if self.tables is not None:
            return name.removeprefix(TABLES_PREFIX) in self.tables.row_state
        return name.startswith(f"{TABLES_WEIGHT}/") and not name.endswith("/step")

    def load_state_tensors(self, state: _State) -> None:
        """Take over `state_tensors` of the same recipe."""
        for name, parameter in self._model.named_parameters():
            prefix = f"{name}/"
            own = {key.removeprefix(prefix): value for key, value in state.items() if key.startswith(prefix)}
            if own:
                self.dense.state[parameter] = _on_device(own, parameter)
        if self.tables is not None:
            self.tables.load_state_tensors(
                {
                    key.removeprefix(TABLES_PREFIX): value
                    for key, value in state.items()
                    if key.startswith(TABLES_PREFIX)
                }
            )


def _on_device(state: _State, parameter: Tensor) -> _State:
    """Copies beside the parameter; a fused optimizer wants its count of steps there too."""
    return {key: value.to(parameter.device, copy=True) for key, value in state.items()}
