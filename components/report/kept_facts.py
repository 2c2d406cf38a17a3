"""What earlier reports worked out from files that have not changed since, so that a page costs the same every day."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from components.common import storage
from components.common.digests import digest_json
from components.common.layout import Store


class KeptFacts:
    """Plain values by name, each with the state of the files that it was worked out from."""

    def __init__(self, store: Store) -> None:
        """Read what the last report left; nothing if it is absent or not readable."""
        self._uri = store.report_facts()
        self._used: dict[str, list[Any]] = {}
        try:
            self._kept: dict[str, list[Any]] = json.loads(storage.find_bytes(self._uri) or b"{}")
        except ValueError:
            self._kept = {}

    def find(self, name: str, state: list[str | None], make: Callable[[], Any]) -> Any:
        """The value that is kept for this state of its files, or else what `make` works out of them."""
        digest = digest_json(state)
        kept = self._kept.get(name)
        self._used[name] = kept if kept and kept[0] == digest else [digest, make()]
        return self._used[name][1]

    def write(self) -> None:
        """Keep what was asked for, and no more."""
        if self._used != self._kept:
            storage.write_bytes(self._uri, json.dumps(self._used).encode())
