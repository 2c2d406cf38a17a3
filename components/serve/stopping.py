"""How a server is told to stop."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable

_SIGNALS = (signal.SIGTERM, signal.SIGINT)


def when_told_to_stop(act: Callable[[], object]) -> None:
    """Call a function at the first SIGTERM or SIGINT; the second ends the process at once."""

    def end(number: int, _: object) -> None:
        os._exit(128 + number)

    def told(number: int, _: object) -> None:
        for each in _SIGNALS:
            signal.signal(each, end)
        act()

    for number in _SIGNALS:
        signal.signal(number, told)


def end_at_once() -> None:
    """What a server does that answers nobody yet."""
    os._exit(0)
