"""Where large tensors lie in memory: what makes random access to rows, and buffers that come and go, cheap on Linux."""

from __future__ import annotations

import ctypes
import math
import sys
from functools import cache

import torch
from torch import Tensor

_MADV_HUGEPAGE = 14
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3
_LARGEST_MMAP_THRESHOLD = 32 * 2**20
_PAGE = 4096


@cache
def _libc() -> ctypes.CDLL | None:
    return ctypes.CDLL(None) if sys.platform == "linux" else None


def zeros(*shape: int, device: torch.device | str | None = None) -> Tensor:
    """A float32 tensor of zeros, on huge pages where the system has them.

    Memory is taken when it is first written to. Rows at random places of gigabytes miss the processor's address cache
    at almost every access on pages of 4 kB.
    """
    tensor, libc = torch.zeros(*shape, device=device), _libc()
    if libc is not None and tensor.device.type == "cpu":
        start = -(-tensor.data_ptr() // _PAGE) * _PAGE
        size = (tensor.data_ptr() + math.prod(shape) * tensor.element_size() - start) // _PAGE * _PAGE
        if size > 0:
            libc.madvise(ctypes.c_void_p(start), ctypes.c_size_t(size), _MADV_HUGEPAGE)
    return tensor


@cache
def reuse_buffers() -> None:
    """Let this process keep the memory of freed tensors up to 32 MB.

    A batch's activations otherwise go back to the system at every step, and are mapped and cleared anew at the next.
    """
    libc = _libc()
    if libc is not None and hasattr(libc, "mallopt"):
        libc.mallopt(_M_MMAP_THRESHOLD, _LARGEST_MMAP_THRESHOLD)
        libc.mallopt(_M_TRIM_THRESHOLD, 2**31 - 1)
