"""Tables spread over processes with TorchRec's planner, beside copies of the net that average their gradients."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import torch
from torch import Tensor, distributed, nn
from torchrec.distributed import DistributedModelParallel
from torchrec.distributed.comm import get_local_size
from torchrec.distributed.embedding_types import EmbeddingComputeKernel
from torchrec.distributed.planner import EmbeddingShardingPlanner
from torchrec.distributed.planner.storage_reservations import FixedPercentageStorageReservation
from torchrec.distributed.planner.types import (
    KernelConfig,
    ParameterConstraints,
    PlannerError,
    TopologyFactory,
    TrainerConfig,
)
from torchrec.distributed.types import (
    Awaitable,
    EmbeddingModuleShardingPlan,
    LazyAwaitable,
    LazyNoWait,
    ModuleSharder,
    NoWait,
    ShardedModule,
    ShardingEnv,
    ShardingPlan,
)
from torchrec.sparse.jagged_tensor import KeyedJaggedTensor
from torchrec.streamable import Multistreamable

from components.common.errors import InputError
from components.features.feature_list import FeatureConfig
from components.tables.config import ShardingConfig
from components.tables.embeddings import Embeddings, redraw_rows
from components.tables.look_ups import RowMix, double_of
from components.tables.row_exchange import RowExchange
from components.tables.rows import DistinctRows, RowGradients
from components.tables.shard_layout import HeldRows, Shard, ShardLayout
from components.tables.table_model import TableModel

_Inputs: TypeAlias = tuple[Tensor, Tensor, Tensor]


@dataclass
class ShardedLookUp(Multistreamable):
    """One batch's way through the shards.

    Attributes:
        sparse: The batch.
        mix: Makes one of a row and its double.
        part_sizes: How many rows are of each part of `KeyLayout.rows`.
        exchange: Its rows' way to their owners.
        vectors: Copies of the different rows that gather the loss's gradient, shape (u, dim).
    """

    sparse: KeyedJaggedTensor | None = field(default=None)
    mix: RowMix | None = field(default=None)
    part_sizes: list[int] = field(default_factory=list)
    exchange: RowExchange | None = field(default=None)
    vectors: Tensor | None = field(default=None)

    def record_stream(self, stream: torch.Stream) -> None:
        """Nothing here outlives its own stream."""


class ShardedEmbeddings(ShardedModule[Tensor, Tensor, _Inputs, ShardedLookUp]):
    """The rows of `Embeddings` that this process holds, in one weight; looks up those of all processes.

    Gradients are exchanged when the optimizer asks for them, not in the backward pass: so collectives come in the same
    order on every process, and nothing is exchanged after a loss that is not finite.

    Attributes:
        weight: The local rows in their global order, shape (rows, dim); updated outside of autograd.
        table_rows: How many of them belong to each table; `frequency_rows` to each part of `layout.frequency_parts`.
        held, group: Who holds which rows, and the processes.
    """

    def __init__(self, module: Embeddings, held: HeldRows, device: torch.device) -> None:
        """Take over the rows that the module was made with."""
        super().__init__()
        assert held.group is not None and len(module.weight) == held.num_rows
        self.held, self.group, self.layout, self.deviation = held, held.group, module.layout, module.deviation
        self.table_rows = held.table_rows(module.table_rows)
        self.frequency_rows = held.num_rows_in(module.layout.frequency_parts)
        self.weight = nn.Parameter(module.weight.detach().to(device), requires_grad=False)
        self.trains_rows = False
        self.look_ups: list[ShardedLookUp] = []

    @property
    def unsharded_module_type(self) -> type[Embeddings]:
        """What this was made of."""
        return Embeddings

    def create_context(self) -> ShardedLookUp:
        """A batch's look-up, to be filled on its way."""
        return ShardedLookUp()

    def input_dist(
        self, ctx: ShardedLookUp, sparse: KeyedJaggedTensor, mix: RowMix | None = None
    ) -> Awaitable[Awaitable[Tensor]]:
        """Ask the owners for the batch's rows; gives the local rows that are asked for, int64, shape (r,)."""
        # Only a batch that does not count has weights: `Batch.uncounted`.
        parts, counts = self.layout.rows(sparse), sparse.weights_or_none() is None
        ctx.sparse, ctx.mix, ctx.part_sizes = sparse, mix, [len(rows) for rows in parts]
        ctx.exchange = RowExchange(torch.cat(parts), counts, self.held.shards, self.group)
        return NoWait(NoWait(ctx.exchange.rows))

    def compute(self, ctx: ShardedLookUp, dist_input: Tensor) -> Tensor:
        """Look local rows up, (r,) to (r, dim)."""
        return self.weight.index_select(0, dist_input)

    def output_dist(self, ctx: ShardedLookUp, output: Tensor) -> LazyAwaitable[_Inputs]:
        """Answer with the local rows, and make the model's inputs of the answers of all."""
        assert ctx.sparse is not None
        vectors = self._answered(ctx, output)
        return LazyNoWait(self.layout.arrange(vectors.split(ctx.part_sizes), ctx.sparse, ctx.mix))

    def _answered(self, ctx: ShardedLookUp, local: Tensor) -> Tensor:
        """Vectors of all look-ups here, shape (m, dim), once each owner has answered with its local rows."""
        assert ctx.exchange is not None
        vectors = ctx.exchange.from_owners(local)
        if self.training and self.trains_rows and torch.is_grad_enabled():
            ctx.vectors = vectors.requires_grad_()
            self.look_ups.append(ctx)
        return ctx.exchange.distinct.expand(vectors)

    def look_up(self, rows: Tensor) -> Tensor:
        """Look up rows of all tables' weight, as `Embeddings.look_up` does; all processes at once."""
        ctx = self.create_context()
        ctx.exchange = RowExchange(rows, True, self.held.shards, self.group)
        return self._answered(ctx, self.weight.index_select(0, ctx.exchange.rows))

    def forward(self, sparse: KeyedJaggedTensor, mix: RowMix | None = None) -> _Inputs:
        """Look up this process's part of a batch, as `Embeddings.forward` does; all processes at once."""
        return super().forward(sparse, mix).wait()

    def gradients(self) -> list[RowGradients]:
        """Exchange the gradients of the look-ups since the last call; all processes at once.

        Gives local rows, how often all processes looked them up, and gradients averaged over the processes as the net's
        are.
        """
        parts = []
        for look_up in self.look_ups:
            exchange, vectors = look_up.exchange, look_up.vectors
            assert exchange is not None and vectors is not None
            assert vectors.grad is not None, "a look-up in training went without a backward pass"
            parts += exchange.by_sender(exchange.to_owners(vectors.grad).div_(self.group.size()))
        self.look_ups.clear()
        return parts

    def row_counts(self, sparse: KeyedJaggedTensor) -> tuple[Tensor, Tensor]:
        """Local rows that a batch looks up which all processes have whole, and how often; int64, shape (u,) each."""
        ranks, places = self.held.shards.owners(torch.cat(self.layout.rows(sparse)))
        distinct = DistinctRows.of(places[ranks == self.held.rank])
        return distinct.rows, distinct.counts

    def redraw(self, rows: Tensor, seed: tuple[int, ...]) -> None:
        """Draw some local rows anew, to the values that one process would draw; bool, shape (local rows,)."""
        start = 0
        for shard in self.held.shards.of_rank(self.held.rank):
            part = slice(start, start + shard.num_rows)
            redraw_rows(self.weight[part], rows[part], shard.first_row, self.deviation, seed)
            start += shard.num_rows


class EmbeddingsSharder(ModuleSharder[Embeddings]):
    """Tells TorchRec how `Embeddings` may be spread, and spreads them."""

    def __init__(self, kinds: tuple[str, ...]) -> None:
        """Allow some of `table_wise` and `row_wise`."""
        super().__init__()
        self._kinds = [*kinds]

    @property
    def module_type(self) -> type[Embeddings]:
        """What is sharded."""
        return Embeddings

    def shardable_parameters(self, module: Embeddings) -> dict[str, nn.Parameter]:
        """One parameter per table, as views of the one weight."""
        parameters = {name: nn.Parameter(table, requires_grad=False) for name, table in module.tables().items()}
        for parameter in parameters.values():
            # The planner counts an optimizer's memory by this attribute alone; Adam's is twice the weight.
            parameter._optimizer_classes = [torch.optim.Adam]  # type: ignore[attr-defined]
        return parameters

    def sharding_types(self, compute_device_type: str) -> list[str]:
        """The kinds allowed, on any device."""
        return self._kinds

    def compute_kernels(self, sharding_type: str, compute_device_type: str) -> list[str]:
        """`fused`: of the kernels that the planner knows, the one whose optimizer takes rows."""
        return [EmbeddingComputeKernel.FUSED.value]

    def shard(
        self,
        module: Embeddings,
        params: EmbeddingModuleShardingPlan,
        env: ShardingEnv,
        device: torch.device | None = None,
        module_fqn: str | None = None,
    ) -> ShardedEmbeddings:
        """Follow a plan."""
        where = device or torch.device("cpu")
        return ShardedEmbeddings(module, planned_rows(params, module.first_rows, env.process_group, where), where)


def planned_rows(
    plan: EmbeddingModuleShardingPlan,
    first_rows: dict[str, int],
    group: distributed.ProcessGroup | None,
    device: torch.device,
) -> HeldRows:
    """This process's rows by a plan; `first_rows` says where each table begins in the weight."""
    shards = [
        Shard(first_rows[table] + part.shard_offsets[0], part.shard_sizes[0], part.placement.rank(), table)
        for table, planned in plan.items()
        for part in planned.sharding_spec.shards
    ]
    return HeldRows(ShardLayout(shards, device), distributed.get_rank(group), group)


def shard(
    make: Callable[[HeldRows | None], TableModel],
    features: FeatureConfig,
    batch_size: int,
    config: ShardingConfig,
    device: torch.device,
) -> DistributedModelParallel:
    """Make a model with its tables spread over the default group's processes, and a copy of the net on each.

    No process ever has all rows. All processes at once; the net's weights, not its buffers, are those of rank 0.

    Args:
        make: Makes the model with some rows of its tables, or all; what it draws must be the same everywhere.
        features: Its feature list.
        batch_size: Examples of each process's part of a batch.
        config: How tables may be spread.
        device: Of this process.

    Raises:
        InputError: If the tables do not fit.
    """
    world_size, memory = distributed.get_world_size(), int(config.memory_gib * 2**30)
    hosts = TrainerConfig(world_size, get_local_size(world_size), hbm_cap_bytes=memory, ddr_cap_bytes=memory)
    with torch.device("meta"):
        shape = make(None)
    topology = TopologyFactory.create_topology(hosts, kernel_config=KernelConfig(compute_device=device.type))
    planner = EmbeddingShardingPlanner(
        topology,
        batch_size,
        # The default over-estimates the net, and warns of it.
        storage_reservation=FixedPercentageStorageReservation(0.15),
        constraints=_constraints(features, shape.embeddings.layout.doubled),
        stats=[],
    )
    sharders = [EmbeddingsSharder(config.kinds)]
    plan = _plan_together(planner, shape, sharders)
    tables = plan.plan["embeddings"]
    assert isinstance(tables, EmbeddingModuleShardingPlan)
    model = make(planned_rows(tables, shape.embeddings.first_rows, distributed.group.WORLD, torch.device("cpu")))
    return DistributedModelParallel(model, device=device, plan=plan, sharders=sharders)


def _plan_together(
    planner: EmbeddingShardingPlanner, model: TableModel, sharders: list[EmbeddingsSharder]
) -> ShardingPlan:
    """Plan on rank 0, for all: TorchRec's `collective_plan` leaves others waiting when there is none."""
    outcome: list[Any] = [None]
    if distributed.get_rank() == 0:
        try:
            outcome = [planner.plan(model, sharders)]
        except PlannerError as error:
            outcome = [f"no sharding plan: {error}; give sharding.memory_gib more, or train on more processes"]
    distributed.broadcast_object_list(outcome)
    if isinstance(outcome[0], str):
        raise InputError(outcome[0])
    return outcome[0]


def _constraints(features: FeatureConfig, doubled: tuple[str, ...]) -> dict[str, ParameterConstraints]:
    """How many rows of each table an example looks up: one by a categorical feature, `length` by others."""
    look_ups: dict[str, list[float]] = {table: [] for table in features.tables}
    columns = [(name, 1) for name in features.categorical_names] + [(own.name, own.length) for own in features.lists]
    columns += [(features.sequence_table(name), features.sequence.length) for name in features.sequence_names]
    for table, number in columns:
        look_ups[table].append(float(number))
    look_ups |= {double_of(table): look_ups[table] for table in doubled}
    # An average number of rows per feature would be summed to one vector in the planner's eyes; poolings are not.
    return {
        table: ParameterConstraints(pooling_factors=[1.0] * len(numbers), num_poolings=numbers)
        for table, numbers in look_ups.items()
    }
