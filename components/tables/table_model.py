"""What optimizer and sharding need to know of a model."""

from __future__ import annotations

from torch import nn

from components.tables.embeddings import Embeddings

TABLES_WEIGHT = "embeddings.weight"


class TableModel(nn.Module):
    """A net behind embedding tables.

    Attributes:
        embeddings: The tables; spread over processes, `ShardedEmbeddings` in their place.
        net: Everything else that is trained.
    """

    embeddings: Embeddings
    net: nn.Module
