"""From a batch's ids to rows of the one weight, and from the rows' vectors to the net's inputs."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import accumulate
from typing import TypeAlias

import torch
from torch import Tensor, nn
from torchrec.sparse.jagged_tensor import KeyedJaggedTensor

from components.features.binary_code import BinaryCode
from components.features.feature_list import FeatureConfig
from components.tables.sparse_ids import sparse_keys

# From a doubled table's name, some of its rows and their doubles, shape (k, dim) each, to what stands for the rows.
RowMix: TypeAlias = Callable[[str, Tensor, Tensor], Tensor]


def double_of(table: str) -> str:
    """The name of the table whose rows are the doubles of another's."""
    return f"{table}@double"


@dataclass(frozen=True)
class _Group:
    """Columns that are looked up in the same way.

    Attributes:
        code: How ids become rows; None where they are rows.
        columns: The columns' places among all.
    """

    code: BinaryCode | None
    columns: list[int]

    @property
    def rows_per_id(self) -> int:
        return self.code.num_blocks if self.code else 1


class ColumnLookUps(nn.Module):
    """Looks up c columns of n ids each, whatever way each column's table has: all of them in one gather."""

    _first_rows: Tensor

    def __init__(self, tables: tuple[str, ...], first_rows: dict[str, int], features: FeatureConfig) -> None:
        """Take the columns' tables, and where each table starts in the weight."""
        super().__init__()
        codes = [features.binary_codes.get(table) for table in tables]
        ways = list(dict.fromkeys(codes))
        self._groups = [_Group(way, [place for place, code in enumerate(codes) if code == way]) for way in ways]
        self.register_buffer("_first_rows", torch.tensor([first_rows[table] for table in tables]), persistent=False)
        self.num_vectors = features.num_vectors(tables)
        # Where the vectors of each column come to lie when all groups' are put behind each other.
        starts: dict[int, int] = {}
        made = 0
        for group in self._groups:
            width = group.code.num_vectors if group.code else 1
            for column in group.columns:
                starts[column] = made
                made += width
        widths = [code.num_vectors if code else 1 for code in codes]
        order = [starts[column] + block for column, width in enumerate(widths) for block in range(width)]
        self._order = None if order == sorted(order) else order

    def rows(self, ids: Tensor) -> Tensor:
        """Rows of the weight for ids of shape (c, n); int64, shape (m,)."""
        if len(self._groups) == 1 and self._groups[0].code is None:
            return (ids + self._first_rows[:, None]).reshape(-1)
        by_group = []
        for group in self._groups:
            own, first = ids[group.columns], self._first_rows[group.columns][:, None]
            by_group += [block + first for block in (group.code.rows(own) if group.code else [own])]
        return torch.cat([rows.reshape(-1) for rows in by_group])

    def num_look_ups(self, num_ids: int) -> int:
        """M for n ids a column."""
        return sum(group.rows_per_id * len(group.columns) for group in self._groups) * num_ids

    def vectors(self, looked_up: Tensor, num_ids: int) -> Tensor:
        """Vectors of the columns.

        Args:
            looked_up: Vectors of `rows`, shape (m, dim).
            num_ids: n.

        Returns:
            Shape (`num_vectors`, n, dim), in the order of the columns.
        """
        dim = looked_up.shape[1]
        if len(self._groups) == 1 and self._groups[0].code is None:
            return looked_up.view(len(self._first_rows), num_ids, dim)
        sizes = [group.rows_per_id * len(group.columns) * num_ids for group in self._groups]
        by_group = []
        for group, part in zip(self._groups, looked_up.split(sizes), strict=True):
            by_block = part.view(group.rows_per_id, len(group.columns), num_ids, dim)
            if group.code is not None and group.code.combine == "sum":
                by_group.append(by_block.sum(0))
            else:
                by_group.append(by_block.transpose(0, 1).flatten(0, 1))
        together = torch.cat(by_group)
        return together if self._order is None else together[self._order]


class KeyLayout(nn.Module):
    """Where the keys of a batch lie in the weight of all tables, and in the net's inputs.

    A doubled table's rows are looked up together with as many of a table behind all others, its doubles.
    """

    def __init__(self, features: FeatureConfig, doubled: tuple[str, ...] = ()) -> None:
        """Lay one table after the other, in the order of `features.tables`, and doubles behind them."""
        super().__init__()
        self.doubled = doubled
        self.table_rows = {**features.tables, **{double_of(table): features.tables[table] for table in doubled}}
        starts = accumulate(self.table_rows.values(), initial=0)
        self.first_rows = dict(zip(self.table_rows, starts, strict=False))
        self.length, self._num_keys = features.sequence.length, len(features.categorical_names)
        self.categorical = ColumnLookUps(features.categorical_tables, self.first_rows, features)
        self.sequence = ColumnLookUps(features.sequence_tables, self.first_rows, features)
        assert len(sparse_keys(features)) == len(features.categorical_tables) + len(features.sequence_tables)

    def rows(self, sparse: KeyedJaggedTensor) -> Tensor:
        """Rows of the weight that a batch looks up, int64, shape (m,): those of its keys, then their doubles."""
        own = self._own_rows(sparse)
        return torch.cat([own, *(doubles for _, _, doubles in self._doubles(own))]) if self.doubled else own

    def _own_rows(self, sparse: KeyedJaggedTensor) -> Tensor:
        categorical, sequence = self._ids(sparse)
        return torch.cat([self.categorical.rows(categorical), self.sequence.rows(sequence)])

    def _doubles(self, own: Tensor) -> Iterator[tuple[str, Tensor, Tensor]]:
        """For each doubled table its name, which of the rows are its own, and the rows of their doubles."""
        for table in self.doubled:
            first = self.first_rows[table]
            places = ((own >= first) & (own < first + self.table_rows[table])).nonzero().squeeze(1)
            yield table, places, own[places] + (self.first_rows[double_of(table)] - first)

    def _ids(self, sparse: KeyedJaggedTensor) -> tuple[Tensor, Tensor]:
        """Ids by column, categorical ones (C, n) and those of sequences (S, positions)."""
        num_examples, num_sequences = sparse.stride(), len(sparse.keys()) - self._num_keys
        of_categorical, of_sequence = sparse.values().tensor_split([self._num_keys * num_examples])
        num_positions = len(of_sequence) // num_sequences
        return of_categorical.view(self._num_keys, num_examples), of_sequence.view(num_sequences, num_positions)

    def arrange(
        self, looked_up: Tensor, sparse: KeyedJaggedTensor, mix: RowMix | None = None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Turn the vectors of `rows`, shape (m, dim), into the net's inputs for a batch of n examples.

        Args:
            looked_up: The vectors.
            sparse: The batch.
            mix: Makes one of a row and its double; asked for if tables are doubled.

        Returns:
            Categorical vectors (n, C, dim), sequence vectors padded with zeros (n, L, S * dim), lengths (n,). C and S
            count the vectors: several for a binary code whose blocks are concatenated.
        """
        if self.doubled:
            assert mix is not None
            looked_up = self._mixed(looked_up, self._own_rows(sparse), mix)
        num_examples, num_positions = sparse.stride(), self._ids(sparse)[1].shape[1]
        # One split: each slice of its own would make a gradient of the whole shape.
        of_categorical, of_sequence = looked_up.split(
            [self.categorical.num_look_ups(num_examples), self.sequence.num_look_ups(num_positions)]
        )
        categorical = self.categorical.vectors(of_categorical, num_examples).transpose(0, 1)
        positions = self.sequence.vectors(of_sequence, num_positions).transpose(0, 1).flatten(1)
        split = self._num_keys * num_examples
        lengths = sparse.lengths()[split : split + num_examples].to(torch.int64)
        used = torch.arange(self.length, device=lengths.device) < lengths[:, None]
        sequence = looked_up.new_zeros(num_examples, self.length, positions.shape[1])
        sequence[used] = positions
        return categorical, sequence, lengths

    def _mixed(self, looked_up: Tensor, own: Tensor, mix: RowMix) -> Tensor:
        vectors, doubles = looked_up.tensor_split([len(own)])
        for table, places, _ in self._doubles(own):
            beside, doubles = doubles.tensor_split([len(places)])
            vectors = vectors.index_copy(0, places, mix(table, vectors[places], beside))
        return vectors
