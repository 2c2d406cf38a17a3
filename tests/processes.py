"""Work in several processes that train together, forked from one that has imported what they need."""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Callable
from pathlib import Path

import torch
from torch import distributed

from components.tables.processes import Process, joined_processes


def _take_part(rank: int, world_size: int, meeting: str, work: list[Callable[[Process], None]]) -> None:
    os.environ |= {"RANK": str(rank), "WORLD_SIZE": str(world_size), "OMP_NUM_THREADS": "1"}
    torch.set_num_threads(1)
    store = distributed.FileStore(meeting, world_size)
    distributed.init_process_group("gloo", store=store, rank=rank, world_size=world_size)
    with joined_processes("cpu") as process:
        for part in work:
            part(process)
    distributed.destroy_process_group()


def in_processes(module: str, world_size: int, meeting: Path, *work: Callable[[Process], None]) -> None:
    """Do work in so many processes at once, one piece after the other.

    Args:
        module: To import before they are forked, since that takes longer than most work.
        world_size: How many.
        meeting: A file for them to meet at, which is not there.
        work: What pickles.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([module])
    parts = [
        context.Process(target=_take_part, args=(rank, world_size, str(meeting), [*work])) for rank in range(world_size)
    ]
    for part in parts:
        part.start()
    for part in parts:
        part.join()
    assert [part.exitcode for part in parts] == [0] * world_size
