"""A model with tables in training: made, written and read by one process or by many together."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from itertools import chain
from typing import Generic, Self, TypeVar

import numpy as np
import torch
from torch import Tensor
from torchrec.distributed import DistributedModelParallel

from components.common.errors import InputError
from components.common.manifests import Manifest, verified_bytes
from components.features.feature_list import FeatureConfig
from components.tables.config import OptimizerConfig, ShardingConfig
from components.tables.optimizer import ModelOptimizer
from components.tables.processes import ALONE, Process
from components.tables.shard_layout import HeldRows
from components.tables.sharding import shard
from components.tables.state_files import read_state, write_state
from components.tables.table_model import TABLES_WEIGHT, TableModel

MODEL_FILE = "model.safetensors"
_OPTIMIZER_FILE = "optimizer.safetensors"
Model = TypeVar("Model", bound=TableModel)


@dataclass
class ModelState(Generic[Model]):
    """A model and its optimizer.

    Attributes:
        model: Over several processes, with this one's rows of the tables.
        optimizer: Its optimizer.
        features: The feature list that its tables follow.
        process: This one of those that train it.
        parallel: What spreads the model over processes, or None.
    """

    model: Model
    optimizer: ModelOptimizer
    features: FeatureConfig
    process: Process = ALONE
    parallel: DistributedModelParallel | None = None

    @classmethod
    def make(
        cls,
        make: Callable[[HeldRows | None], Model],
        features: FeatureConfig,
        optimizer: OptimizerConfig,
        batch_size: int,
        sharding: ShardingConfig,
        process: Process,
        frozen: Collection[str] = (),
    ) -> Self:
        """A new model, the same in any number of processes; all of them at once.

        Args:
            make: Makes the model with some rows of its tables, or all; what it draws must be the same everywhere.
            features: The feature list that its tables follow.
            optimizer: How it is trained.
            batch_size: Examples of all processes' parts of a batch.
            sharding: How tables may be spread.
            process: This one of those that train it.
            frozen: Tables that stay as they are.

        Raises:
            InputError: If the tables do not fit, or the optimizer moves all rows at every step.
        """
        if process.is_alone:
            model = make(None).to(process.device)
            return cls(model, ModelOptimizer(model, optimizer, frozen), features, process)
        parallel = shard(make, features, batch_size // process.share.world_size, sharding, process.device)
        model = parallel.module
        return cls(model, ModelOptimizer(model, optimizer, frozen), features, process, parallel)

    @property
    def held(self) -> HeldRows:
        """The rows that this process holds."""
        if self.parallel is None:
            return HeldRows.alone(len(self.model.embeddings.weight))
        return self.parallel.module.embeddings.held

    def renew(self, table: str, rows: np.ndarray, seed: tuple[int, ...]) -> None:
        """Make some rows of a table new: drawn by the seed, and without anything that the optimizer knew of them."""
        embeddings, chosen = self.model.embeddings, np.zeros(self.features.tables[table], dtype=bool)
        if not len(rows):
            return
        chosen[rows] = True
        first, own = embeddings.layout.first_rows[table], torch.zeros(len(embeddings.weight), dtype=torch.bool)
        self.held.put(own, torch.from_numpy(chosen), first)
        self.optimizer.renew(own.to(embeddings.weight.device), seed)

    def write(self, folder: str) -> list[str]:
        """Write weights and optimizer as files; returns the names of this process's; all processes at once."""
        state, by_row = self.optimizer.state_tensors(), self.optimizer.is_by_row
        return [*self.write_weights(folder), *write_state(folder, _OPTIMIZER_FILE, state, by_row, self.held)]

    def write_weights(self, folder: str) -> list[str]:
        """Write the weights only, likewise."""
        return write_state(folder, MODEL_FILE, self.model.state_dict(), TABLES_WEIGHT.__eq__, self.held)

    def read(self, uri: str, manifest: Manifest) -> None:
        """Take over what `write` wrote for the same recipe, in whatever number of processes.

        Raises:
            InputError: If a file is damaged, or it was another recipe.
        """
        read = partial(verified_bytes, uri, manifest)
        load_weights(self.model, uri, read, self.held)
        with fitting(uri):
            own, by_row = self.optimizer.state_tensors(), self.optimizer.is_by_row
            self.optimizer.load_state_tensors(read_state(read, _OPTIMIZER_FILE, by_row, self.held, own))

    def check_finite(self, title: str) -> None:
        """Check the weights, which no loss has seen since the last update; all processes at once.

        Raises:
            FloatingPointError: On all processes, naming the weights with numbers that are not finite.
        """
        weights = self.model.state_dict()
        own = [name for name, value in weights.items() if value.is_floating_point() and not _is_finite(value)]
        damaged = sorted({*chain(*self.process.gathered(own))})
        if damaged:
            raise FloatingPointError(
                f"{title}: {len(damaged)} weights such as {', '.join(damaged[:3])} are not finite after the last "
                "update; lower optimizer.learning_rate or set optimizer.max_gradient_norm"
            )


def load_weights(model: TableModel, uri: str, read: Callable[[str], bytes], held: HeldRows) -> None:
    """Take over the weights of a directory whose files `read` gives, of the tables' rows those held.

    Raises:
        InputError: If they are those of another recipe.
    """
    with fitting(uri):
        model.load_state_dict(read_state(read, MODEL_FILE, TABLES_WEIGHT.__eq__, held, model.state_dict()))


@contextmanager
def fitting(uri: str) -> Iterator[None]:
    """Tensors of a directory are taken over; those of another recipe are an InputError."""
    try:
        yield
    except InputError:
        raise
    except (RuntimeError, ValueError, KeyError) as error:
        raise InputError(f"{uri}: does not fit its recipe: {' '.join(str(error).split())}") from error


def _is_finite(values: Tensor) -> bool:
    """Whether all numbers are; in runs of rows, since torch makes copies on the way."""
    runs = values.split(2**16) if values.dim() else (values,)
    return all(bool(run.isfinite().all()) for run in runs)
