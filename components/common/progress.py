"""What a step says while it works: plain one-line logs, and progress lines that a terminal turns into bars."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager

from components.common.errors import InputError

LINE_PREFIX = "[afterclick] "
PROGRESS_PREFIX = "[afterclick-progress] "
STEP_PREFIX = "[afterclick-step] "
ERROR_PREFIX = "[afterclick-error] "


def log_line(step: str, message: str) -> None:
    """Print one line that names the step; of the processes that torchrun starts, the first one speaks."""
    if _speaks():
        print(f"{LINE_PREFIX}{step}: {message}", flush=True)


@contextmanager
def reported(step: str) -> Iterator[None]:
    """Say that a step begins, and if it fails, why, on one line; what a user can mend has no traceback.

    Raises:
        SystemExit: In place of an `InputError`, with the exit code `os.EX_DATAERR`.
    """
    # kfp's executor lets every library talk.
    logging.getLogger().setLevel(logging.WARNING)
    print(f"{STEP_PREFIX}{step}", flush=True)
    try:
        yield
    except Exception as error:
        print(f"{ERROR_PREFIX}{' '.join(str(error).split())}", flush=True)
        if isinstance(error, InputError):
            raise SystemExit(os.EX_DATAERR) from None
        raise


def _speaks() -> bool:
    return os.environ.get("RANK", "0") == "0"


class Progress:
    """Prints how far a step is, at most every `AFTERCLICK_PROGRESS_SECONDS` (10 unless set)."""

    def __init__(self, step: str, total: int) -> None:
        """Start at zero of `total`."""
        self._step, self._total = step, max(total, 1)
        self._interval_seconds = float(os.environ.get("AFTERCLICK_PROGRESS_SECONDS", "10"))
        self._printed_at = time.monotonic()

    def update(self, done: int, note: str = "") -> None:
        """Say that `done` of the total is done, with a short note such as a rate."""
        now = time.monotonic()
        if _speaks() and (now - self._printed_at >= self._interval_seconds or done >= self._total):
            self._printed_at = now
            print(f"{PROGRESS_PREFIX}{self._step} | {done}/{self._total} | {note}", flush=True)
