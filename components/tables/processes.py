"""The processes that train together: one, or those that torchrun started."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from itertools import chain
from typing import Any

import torch
from torch import Tensor, distributed

from components.common import storage
from components.common.errors import InputError
from components.common.manifests import M, Manifest, describe_file, finish_directory, verify_files


@dataclass(frozen=True)
class Share:
    """Which part of every batch a process takes: the `rank`-th of `world_size`."""

    rank: int = 0
    world_size: int = 1

    def of(self, start: int, stop: int) -> tuple[int, int, bool]:
        """The process's part of the positions `start`..`stop`, and whether it counts.

        Of fewer positions than processes, those that have none take the first without counting it: a net cannot do
        without rows.
        """
        size = stop - start
        low, high = (start + number * size // self.world_size for number in (self.rank, self.rank + 1))
        return (low, high, True) if low < high else (start, start + 1, False)


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
        values = [value]
        distributed.broadcast_object_list(values)
        return values[0]

    def gathered(self, value: Any) -> list[Any]:
        """What each process has, by rank; all processes at once."""
        values = [value] * self.share.world_size
        if not self.is_alone:
            distributed.all_gather_object(values, value)
        return values

    def copy_from_first(self, tensors: Iterable[Tensor]) -> None:
        """Overwrite tensors with those of the first process; all processes at once."""
        if not self.is_alone:
            for tensor in tensors:
                distributed.broadcast(tensor.detach(), 0)

    def average_gradients(self, parameters: Iterable[Tensor]) -> None:
        """Average what each process's backward pass left on the same parameters; all processes at once."""
        if self.is_alone:
            return
        for parameter in parameters:
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
            distributed.all_reduce(parameter.grad.div_(self.share.world_size))

    def write_artifact(self, uri: str, manifest: M, write_files: Callable[[str], Iterable[str]]) -> M | None:
        """Fill a directory with what all processes write, and describe it; all processes at once.

        Args:
            uri: The directory, on a filesystem that all share.
            manifest: Its description, without its files.
            write_files: Writes files of its own into the directory that it is given; returns their names.

        Returns:
            The manifest as written, on the first process; None on the others.
        """
        with storage.new_directory(uri) if self.is_first else nullcontext() as made:
            folder = self.agreed(made)
            written = [*write_files(folder)]
            sizes = storage.list_sizes(folder)
            files = self.gathered([describe_file(folder, name, sizes[name]) for name in written])
            if not self.is_first:
                return None
            return finish_directory(folder, manifest, sorted(chain(*files), key=lambda entry: entry.name))

    def verify_files(self, uri: str, manifest: Manifest) -> None:
        """Compare every file with its digest, each process some of them; all processes at once.

        Raises:
            InputError: On all processes, naming the first file that is absent or differs.
        """
        problem, share = None, self.share
        names = tuple(entry.name for entry in manifest.files[share.rank :: share.world_size])
        try:
            if names:
                verify_files(uri, manifest, names)
        except InputError as error:
            problem = str(error)
        problems = [found for found in self.gathered(problem) if found is not None]
        if problems:
            raise InputError(problems[0])


ALONE = Process(torch.device("cpu"))


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
