"""Which of an arm's old checkpoints may go."""

from __future__ import annotations

from datetime import date

from components.common import storage
from components.common.layout import Store
from components.common.progress import log_line
from components.common.releases import BATCH, DAILY, EXPERIMENT_CHANNEL, PRODUCTION_CHANNEL, read_pointer


def prune_checkpoints(store: Store, arm: str, trained: date, keep_days: int | None) -> None:
    """Delete an arm's old checkpoints after a day was trained on.

    There stay the newest `keep_days` up to that day, later ones, the first, which holds the batch, those whose version
    a channel points to, as it is scored beside the arms, and all from the last finished run's day on: the next run
    scores that day's checkpoint, and training may be ahead of scoring.
    """
    finished = [*store.finished_days(DAILY), *store.finished_days(BATCH)]
    if keep_days is None or not finished:
        return
    days = [day for day in store.checkpoint_days(arm) if day <= trained]
    pointers = [read_pointer(store, channel) for channel in (PRODUCTION_CHANNEL, EXPERIMENT_CHANNEL)]
    in_use = {pointer.trained_through for pointer in pointers if pointer is not None and pointer.arm == arm}
    for day in days[1:-keep_days]:
        if day not in in_use and day < max(finished):
            storage.remove(store.checkpoint(arm, day))
            log_line("train", f"{arm} {day}: checkpoint deleted, train.execution.keep_days = {keep_days}")
