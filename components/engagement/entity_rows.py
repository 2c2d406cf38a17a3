"""Vectors of entities by their ids, from the one weight of all tables."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from components.features.binary_code import BinaryCode
from components.tables.embeddings import Embeddings


def look_up(embeddings: Embeddings, codes: dict[str, BinaryCode], asked: Sequence[tuple[str, Tensor]]) -> list[Tensor]:
    """Vectors of ids, each shape (n_i, dim), in one look-up; blocks of a binary code are added up.

    Args:
        embeddings: The tables, or `ShardedEmbeddings`: then all processes at once.
        codes: By table, where ids are codes.
        asked: Tables, each with ids below its `num_ids`, int64, shape (n_i,).
    """
    blocks = []
    for table, ids in asked:
        code = codes.get(table)
        blocks.append(torch.stack(code.rows(ids) if code else [ids]) + embeddings.layout.first_rows[table])
    looked_up = embeddings.look_up(torch.cat([rows.reshape(-1) for rows in blocks]))
    parts = looked_up.split([rows.numel() for rows in blocks])
    return [part.view(*rows.shape, looked_up.shape[1]).sum(0) for part, rows in zip(parts, blocks, strict=True)]
