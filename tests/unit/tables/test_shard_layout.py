"""Who holds which rows."""

from __future__ import annotations

import torch

from components.tables.shard_layout import HeldRows, Shard, ShardLayout


def test_layout_finds_owners_past_empty_shards():
    shards = [Shard(5, 2, 1, "b"), Shard(0, 3, 2, "a"), Shard(3, 0, 0, "a"), Shard(3, 2, 1, "a")]
    layout = ShardLayout(shards, torch.device("cpu"))
    ranks, places = layout.owners(torch.arange(7))
    assert ranks.tolist() == [2, 2, 2, 1, 1, 1, 1]
    assert places.tolist() == [0, 1, 2, 0, 1, 2, 3]
    assert [(piece.rank, piece.of_run, piece.of_weight) for piece in layout.pieces(1, 6)] == [
        (2, slice(0, 2), slice(1, 3)),
        (1, slice(2, 4), slice(0, 2)),
        (1, slice(4, 5), slice(2, 3)),
    ]
    assert HeldRows(layout, 0).num_rows == 0 and HeldRows(layout, 1).num_rows == 4
