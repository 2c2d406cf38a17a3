"""The processes that train together: one, or those that torchrun started."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import distributed

from components.common.errors import InputError
from components.train.loader import Share


@dataclass(frozen=True)
class Process:
    """This process's place among those that train together.

    Attributes:
        device: Where it computes.
        share: Its part of every batch.
    """

    device: torch.device
    share: Share = Share()

    @property
    def is_first(self) -> bool:
        """Whether it writes what all have made."""
        return self.share.rank == 0

    @property
    def is_alone(self) -> bool:
        """Whether there are no others."""
        return self.share.world_size == 1

    def agreed(self, value: Any) -> Any:
        """The first process's value, on all of them; all processes at once."""
        if self.is_alone:
            return value
        found = [value]
        distributed.broadcast_object_list(found)
        return found[0]


@contextmanager
def joined_processes(device: str) -> Iterator[Process]:
    """Join the processes that torchrun started beside this one; alone without torchrun. Within itself it joins once.

    Raises:
        InputError: If the device is not there.
    """
    if device == "cuda" and not torch.cuda.is_available():
        raise InputError("train.execution.device: cuda, but torch finds no GPU here; use auto or cpu")
    on_gpu = device == "cuda" or (device == "auto" and torch.cuda.is_available())
    place = torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0"))) if on_gpu else torch.device("cpu")
    if on_gpu:
        torch.cuda.set_device(place)
    if int(os.environ.get("WORLD_SIZE", "1")) == 1 or distributed.is_initialized():
        yield Process(place, _share())
        return
    distributed.init_process_group("nccl" if on_gpu else "gloo")
    try:
        yield Process(place, _share())
        distributed.barrier()
    finally:
        distributed.destroy_process_group()


def _share() -> Share:
    if not distributed.is_initialized():
        return Share()
    return Share(distributed.get_rank(), distributed.get_world_size())
