"""Training state of a model whose tables are spread over processes, as one process would hold it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TypeAlias

import torch
from torch import Tensor, distributed
from torchrec.distributed import DistributedModelParallel

from components.tables.optimizer import TABLES_PREFIX, ModelOptimizer
from components.tables.sharding import ShardedEmbeddings

_State: TypeAlias = dict[str, Tensor]
_WEIGHT = "embeddings.weight"


def gather_state(parallel: DistributedModelParallel, optimizer: ModelOptimizer) -> tuple[_State, _State] | None:
    """Model and optimizer as one process would hold them, on rank 0; None elsewhere; all processes at once."""
    embeddings = parallel.module.embeddings
    model, moments = parallel.module.state_dict(), optimizer.state_tensors()
    for state, name in _row_tensors(model, moments, optimizer):
        full = _gather_rows(state[name], embeddings)
        if full is not None:
            state[name] = full
    return (model, moments) if distributed.get_rank() == 0 else None


def local_state(moments: _State, optimizer: ModelOptimizer, embeddings: ShardedEmbeddings) -> _State:
    """This process's part of a single process's optimizer state, for `load_state_tensors`."""
    by_row = {name for _, name in _row_tensors({}, moments, optimizer)}
    rank = distributed.get_rank(embeddings.group)
    return {n: embeddings.shards.take(value, rank) if n in by_row else value.clone() for n, value in moments.items()}


def _row_tensors(model: _State, moments: _State, optimizer: ModelOptimizer) -> Iterator[tuple[_State, str]]:
    """Everything that has one entry per table row, in the same order everywhere."""
    yield from ((model, name) for name in (_WEIGHT,) if name in model)
    assert optimizer.tables is not None
    yield from ((moments, TABLES_PREFIX + name) for name in sorted(optimizer.tables.row_state))


def _gather_rows(local: Tensor, embeddings: ShardedEmbeddings) -> Tensor | None:
    """All rows on rank 0, on the host; None elsewhere."""
    group, shards = embeddings.group, embeddings.shards
    # No backend sends uint32: the same bits travel as int32.
    sent = local.detach().view(torch.int32) if local.dtype == torch.uint32 else local.detach()
    if group.rank() != 0:
        if len(sent):
            distributed.send(sent.contiguous(), group=group, group_dst=0)
        return None
    full = torch.empty(shards.num_rows, *sent.shape[1:], dtype=sent.dtype)
    shards.put(full, sent, 0)
    for rank in range(1, group.size()):
        rows = sum(shard.num_rows for shard in shards.of_rank(rank))
        if rows:
            part = sent.new_empty(rows, *sent.shape[1:])
            distributed.recv(part, group=group, group_src=rank)
            shards.put(full, part, rank)
    return full.view(local.dtype)
