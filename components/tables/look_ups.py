"""From a batch's ids to rows of the one weight, and from the rows' vectors to the net's inputs."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise
from typing import TypeAlias, cast

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
        """Rows of the weight for ids of shape (c, n); int64, shape (m,): those of the first of the n, then the next."""
        by_group = []
        for group in self._groups:
            own, first = ids[group.columns], self._first_rows[group.columns][:, None]
            blocks = [block + first for block in (group.code.rows(own) if group.code else [own])]
            by_group.append(torch.stack(blocks, dim=1).flatten(0, 1) if group.code else blocks[0])
        return (torch.cat(by_group) if len(by_group) > 1 else by_group[0]).t().reshape(-1)

    def num_look_ups(self, num_ids: int) -> int:
        """M for n ids a column."""
        return sum(group.rows_per_id * len(group.columns) for group in self._groups) * num_ids

    def vectors(self, looked_up: Tensor, num_ids: int) -> Tensor:
        """Vectors of the columns.

        Args:
            looked_up: Vectors of `rows`, shape (m, dim).
            num_ids: n.

        Returns:
            Shape (n, `num_vectors`, dim), in the order of the columns.
        """
        together = looked_up.view(num_ids, self.num_look_ups(1), looked_up.shape[1])
        if any(group.code for group in self._groups):
            by_group = []
            parts = together.split([group.rows_per_id * len(group.columns) for group in self._groups], dim=1)
            for group, part in zip(self._groups, parts, strict=True):
                if group.code is not None and group.code.combine == "sum":
                    part = part.unflatten(1, (len(group.columns), group.rows_per_id)).sum(2)
                by_group.append(part)
            together = torch.cat(by_group, dim=1)
        return together if self._order is None else together[:, self._order]


class KeyLayout(nn.Module):
    """Where the keys of a batch lie in the weight of all tables, and in the net's inputs.

    A doubled table's rows are looked up together with as many of a table behind all others, its doubles.

    Attributes:
        frequency_parts: From which row to which frequencies are compared: a table, or one without its shared rows.
    """

    def __init__(self, features: FeatureConfig, doubled: tuple[str, ...] = ()) -> None:
        """Lay one table after the other, in the order of `features.tables`, and doubles behind them."""
        super().__init__()
        self.doubled = doubled
        self.table_rows = {**features.tables, **{double_of(table): features.tables[table] for table in doubled}}
        starts = accumulate(self.table_rows.values(), initial=0)
        self.first_rows = dict(zip(self.table_rows, starts, strict=False))
        self.frequency_parts: list[tuple[int, int]] = []
        for table, start in self.first_rows.items():
            # The rows that unknown ids share are looked up by many ids: no measure of what one id gets.
            own = features.exact_ids[table].capacity if table in features.exact_ids else self.table_rows[table]
            ends = [start, start + own, start + self.table_rows[table]]
            self.frequency_parts += [part for part in pairwise(ends) if part[0] < part[1]]
        self.length, self._num_keys = features.sequence.length, len(features.categorical_names)
        self.categorical = ColumnLookUps(features.categorical_names, self.first_rows, features)
        self.sequence = ColumnLookUps(features.sequence_tables, self.first_rows, features)
        self.lists = nn.ModuleList(ColumnLookUps((own.name,), self.first_rows, features) for own in features.lists)
        self._list_lengths = [own.length for own in features.lists]
        assert len(sparse_keys(features)) == self._num_keys + len(features.sequence_tables) + len(features.lists)

    def rows(self, sparse: KeyedJaggedTensor) -> list[Tensor]:
        """Rows of the weight that a batch looks up, int64: of categorical columns, sequences, lists, and doubles."""
        categorical, sequence, *lists = self._ids(sparse)
        own = [self.categorical.rows(categorical), self.sequence.rows(sequence)]
        own += [cast(ColumnLookUps, own_list).rows(ids) for own_list, ids in zip(self.lists, lists, strict=True)]
        return [*own, torch.cat([doubles for *_, doubles in self._doubles(torch.cat(own))])] if self.doubled else own

    def _doubles(self, own: Tensor) -> Iterator[tuple[str, Tensor, Tensor]]:
        """For each doubled table its name, which of the rows are its own, and the rows of their doubles."""
        for table in self.doubled:
            first = self.first_rows[table]
            places = ((own >= first) & (own < first + self.table_rows[table])).nonzero().squeeze(1)
            yield table, places, own[places] + (self.first_rows[double_of(table)] - first)

    def _ids(self, sparse: KeyedJaggedTensor) -> list[Tensor]:
        """Ids by column: categorical ones (C, n), of sequences (S, positions), and of each list (1, positions)."""
        num_examples, num_lists = sparse.stride(), len(self._list_lengths)
        num_sequences = len(sparse.keys()) - self._num_keys - num_lists
        of_categorical, others = sparse.values().tensor_split([self._num_keys * num_examples])
        sizes = sparse.length_per_key()[-num_lists:] if num_lists else []
        of_sequence, *of_lists = others.split([len(others) - sum(sizes), *sizes])
        num_positions = len(of_sequence) // num_sequences
        by_column = [of_categorical.view(self._num_keys, num_examples), of_sequence.view(num_sequences, num_positions)]
        return [*by_column, *(ids[None] for ids in of_lists)]

    def arrange(
        self, looked_up: Sequence[Tensor], sparse: KeyedJaggedTensor, mix: RowMix | None = None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Turn the vectors of `rows` into the net's inputs for a batch of n examples.

        Args:
            looked_up: The vectors of each part of `rows`, shape (m_i, dim).
            sparse: The batch.
            mix: Makes one of a row and its double; asked for if tables are doubled.

        Returns:
            Categorical vectors and those of lists' positions (n, C + P, dim), sequence vectors (n, L, S * dim), both
            padded with zeros, and lengths (n,). C and S count the vectors: several for a binary code whose blocks are
            concatenated.
        """
        if self.doubled:
            assert mix is not None
            looked_up = self._mixed(looked_up, sparse, mix)
        of_categorical, of_sequence, *of_lists = looked_up
        num_examples, num_positions = sparse.stride(), self._ids(sparse)[1].shape[1]
        categorical = self.categorical.vectors(of_categorical, num_examples)
        positions = self.sequence.vectors(of_sequence, num_positions).flatten(1)
        split = self._num_keys * num_examples
        lengths = sparse.lengths()[split : split + num_examples].to(torch.int64)
        sequence = _padded(positions, lengths, self.length)
        if of_lists:
            sizes = sparse.lengths()[-len(of_lists) * num_examples :].view(len(of_lists), num_examples)
            padded = map(_padded, of_lists, sizes, self._list_lengths)
            categorical = torch.cat([categorical, *padded], dim=1)
        return categorical, sequence, lengths

    def _mixed(self, looked_up: Sequence[Tensor], sparse: KeyedJaggedTensor, mix: RowMix) -> Sequence[Tensor]:
        *own, doubles = looked_up
        rows, vectors = torch.cat(self.rows(sparse)[: len(own)]), torch.cat(own)
        for table, places, _ in self._doubles(rows):
            beside, doubles = doubles.tensor_split([len(places)])
            vectors = vectors.index_copy(0, places, mix(table, vectors[places], beside))
        return vectors.split([len(part) for part in own])


def _padded(vectors: Tensor, sizes: Tensor, length: int) -> Tensor:
    """Vectors of n rows behind each other, `sizes` of each, padded with zeros to (n, length, dim)."""
    used = torch.arange(length, device=sizes.device) < sizes[:, None]
    padded = vectors.new_zeros(len(sizes), length, vectors.shape[1])
    padded[used] = vectors
    return padded
