"""Tensors of a model with large tables as safetensors files, the same ones however many processes hold the rows.

A file holds a run of all rows, `FILE_BYTES` at most, so that nobody ever has all rows in hand: the first,
`NAME.safetensors`, has everything else too; the others are `NAME-00001.safetensors` and so on. Small models have one
file.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from pathlib import PurePosixPath
from typing import TypeAlias

import safetensors.torch
from torch import Tensor

from components.common import storage
from components.tables.shard_layout import HeldRows

State: TypeAlias = dict[str, Tensor]
FILE_BYTES = 2**27


def file_name(name: str, number: int) -> str:
    """The name of the `number`-th file of a state."""
    path = PurePosixPath(name)
    return name if number == 0 else f"{path.stem}-{number:05d}{path.suffix}"


def write_state(folder: str, name: str, state: State, by_row: Callable[[str], bool], held: HeldRows) -> list[str]:
    """Write a state; every process the files that begin with rows of its own; all processes at once.

    Args:
        folder: Where to.
        name: Of the first file.
        state: The tensors; equal on all processes but for those by row, of which each has what it holds.
        by_row: Whether a tensor of this name has an entry for each row.
        held: The rows that this process holds.

    Returns:
        The names of the files that this process has written.
    """
    names, written, total = sorted(filter(by_row, state)), [], held.shards.num_rows
    row_bytes = sum(math.prod(state[key].shape[1:]) * state[key].element_size() for key in names)
    rows = max(FILE_BYTES // row_bytes, 1) if names else total
    for number, start in enumerate(range(0, total, rows)):
        stop = min(start + rows, total)
        writer = held.shards.pieces(start, start + 1)[0].rank if number else 0
        parts = {key: held.gather(state[key], start, stop, writer) for key in names}
        if writer != held.rank:
            continue
        if number == 0:
            parts |= {key: value for key, value in state.items() if key not in parts}
        content = {key: value.detach().cpu().contiguous() for key, value in parts.items() if value is not None}
        written.append(file_name(name, number))
        storage.write_bytes(storage.join_uri(folder, written[-1]), safetensors.torch.save(content))
    return written


def read_state(
    read: Callable[[str], bytes], name: str, by_row: Callable[[str], bool], held: HeldRows, into: State
) -> State:
    """Read what `write_state` wrote, of the rows what this process holds.

    Args:
        read: Gives a file's content.
        name: Of the first file.
        by_row: Whether a tensor of this name has an entry for each row.
        held: The rows that this process holds.
        into: Tensors by row that are to be overwritten, so that there is no second copy; others are made.

    Raises:
        ValueError: If the files hold other rows.
    """
    total = held.shards.num_rows
    first = safetensors.torch.load(read(name))
    names = [key for key in first if by_row(key)]
    rows = len(first[names[0]]) if names else total
    state = {key: value for key, value in first.items() if key not in names}
    state |= {key: into[key] for key in names if key in into}
    state |= {key: first[key].new_empty(held.num_rows, *first[key].shape[1:]) for key in names if key not in into}
    for number, start in enumerate(range(0, total, max(rows, 1)) if names else ()):
        stop = min(start + rows, total)
        if not held.own_pieces(start, stop):
            continue
        run = safetensors.torch.load(read(file_name(name, number))) if number else first
        for key in names:
            expected, found = (stop - start, *state[key].shape[1:]), tuple(run[key].shape) if key in run else None
            if found != expected or run[key].dtype != state[key].dtype:
                raise ValueError(f"{file_name(name, number)}: {key} has the shape {found}, not {expected}")
            held.put(state[key], run[key], start)
        first = {}
    return state


def read_runs(read: Callable[[str], bytes], name: str, key: str, num_rows: int) -> Iterator[tuple[int, Tensor]]:
    """The rows of one tensor of a state, a file at a time: the first row's number, and the rows."""
    start = number = 0
    while start < num_rows:
        run = safetensors.torch.load(read(file_name(name, number)))[key]
        yield start, run
        start, number = start + len(run), number + 1
