"""Imports that the garbage collector need not look at."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def long_lived() -> Iterator[None]:
    """While it lasts nothing is collected, and what there is when it ends is never looked at again.

    Modules of hundreds of thousands of objects are imported here, all of which live as long as their process. Python
    would look at them over and over while they come, in the midst of later work, and once more when the process ends.
    What refers to itself is never freed if it is made here, so it is for imports only.
    """
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        if was_enabled:
            gc.enable()
