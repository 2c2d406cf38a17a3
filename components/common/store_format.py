"""Which release's rules a store keeps: those of two releases are never mixed in one."""

from __future__ import annotations

from components.common import storage
from components.common.config import Config
from components.common.errors import InputError
from components.common.layout import Store
from components.common.records import create_record, find_record

# 1 had two arms by fixed names, and no trials.
FORMAT = 2
_MADE_BY_RUNS = ("ledger", "runs", "checkpoints")


class StoreFormat(Config):
    """What is written into a store before anything else is."""

    format: int


def check_format(store: Store) -> None:
    """Check that a store is of this release, or that nothing has run in it yet.

    Raises:
        InputError: If another release made it.
    """
    number = _format_of(store)
    if number not in (None, FORMAT):
        raise InputError(
            f"{store.root}: a store of format {number}, and this release's is {FORMAT}: go on with the release that "
            "made it, or use a new store, which takes over nothing but the logs that its source delivers again"
        )


def claim_format(store: Store) -> None:
    """Check a store, and mark a new one, before anything is written into it.

    Raises:
        InputError: If another release made it.
    """
    check_format(store)
    if _format_of(store) is None:
        create_record(store.format(), StoreFormat(format=FORMAT))


def _format_of(store: Store) -> int | None:
    """A store's format; None before its first run."""
    found = find_record(store.format(), StoreFormat, "restore it")
    if found is None:
        is_used = any(storage.list_names(storage.join_uri(store.root, name)) for name in _MADE_BY_RUNS)
        return 1 if is_used else None
    return found.format
