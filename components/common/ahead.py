"""Items made by a thread while those before them are worked on."""

from __future__ import annotations

import queue
import threading
from collections.abc import Iterator
from typing import TypeVar

_Item = TypeVar("_Item")


def ahead(items: Iterator[_Item], depth: int) -> Iterator[_Item]:
    """The same items, made ahead by a thread, of which at most `depth` wait beside the one that it makes.

    Its error is raised here. A caller that stops early ends the thread.
    """
    ready: queue.Queue[tuple[str, _Item | BaseException | None]] = queue.Queue(depth)
    stopped = threading.Event()

    def put(kind: str, content: _Item | BaseException | None) -> None:
        while not stopped.is_set():
            try:
                return ready.put((kind, content), timeout=0.1)
            except queue.Full:
                continue

    def work() -> None:
        try:
            for item in items:
                put("item", item)
                if stopped.is_set():
                    return
            put("end", None)
        except BaseException as error:
            put("error", error)

    thread = threading.Thread(target=work, name="ahead", daemon=True)
    thread.start()
    try:
        while True:
            kind, content = ready.get()
            if kind == "end":
                return
            if isinstance(content, BaseException):
                raise content
            yield content  # type: ignore[misc]
    finally:
        stopped.set()
        thread.join()
