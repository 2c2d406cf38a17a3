"""What a store no longer needs: everything that runs leave behind, beside what is in use."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import date, timedelta
from functools import partial
from typing import ClassVar

from pydantic import Field

from components.common import storage
from components.common.arms import arm_of, find_retirement
from components.common.config import GrownConfig
from components.common.deployments import read_deployment
from components.common.layout import Store
from components.common.progress import log_line
from components.common.releases import (
    BATCH,
    DAILY,
    EXPERIMENT_CHANNEL,
    PRODUCTION_CHANNEL,
    Pointer,
    read_blessing,
    read_pointer,
    read_publication,
)
from components.common.rollouts import find_replaced

_DAY = re.compile(r"\d{4}-\d{2}-\d{2}")


class RetentionConfig(GrownConfig):
    """How much is kept beside what is in use, after every run; null keeps all of it.

    The logs, the examples, the ledger and all records stay, whatever their age.
    """

    later: ClassVar[tuple[str, ...]] = ("online_days",)

    checkpoint_days: int | None = Field(14, ge=2, description="newest daily checkpoints of each arm")
    versions: int | None = Field(10, ge=1, description="newest published versions, to go back to")
    pretrained_tables: int | None = Field(4, ge=1, description="newest pretrained tables")
    edge_days: int | None = Field(
        None, ge=2, description="newest log days of edges; no fewer than pretrain.edges.num_days, the window's"
    )
    summary_days: int | None = Field(
        None, ge=2, description="newest summaries of log days; no fewer than the features of a day reach back to"
    )
    online_days: int | None = Field(3, ge=1, description="newest online features of each feature list")
    report_days: int | None = Field(
        60,
        ge=2,
        description="days on a report's page, and of pages, statistics, TensorBoard's files and kfp's local files",
    )


@dataclass(frozen=True)
class Removal:
    """A file or directory that may go, and why."""

    uri: str
    reason: str


def removals(store: Store, config: RetentionConfig) -> list[Removal]:
    """What may go; what a channel, a deployment, an unfinished run or the next one needs is not in it.

    Raises:
        InputError: If a record that says what is in use is damaged: then nothing is certain.
    """
    finished = [(pipeline, day) for pipeline in (BATCH, DAILY) for day in store.finished_days(pipeline)]
    if not finished:
        return []
    newest = max(day for _, day in finished)
    channels = (read_pointer(store, channel) for channel in (PRODUCTION_CHANNEL, EXPERIMENT_CHANNEL))
    pointers = [pointer for pointer in channels if pointer is not None]
    return [
        *_checkpoints(store, config.checkpoint_days, newest, pointers),
        *_versions(store, config.versions, pointers),
        *_staged_versions(store),
        *_pretrained(store, config.pretrained_tables),
        *_log_days(store.edge_days(), store.edges, config.edge_days, "days of edges"),
        *_log_days(store.log_summary_days(), store.log_summary, config.summary_days, "summaries of log days"),
        *_online_features(store, config.online_days),
        *_pages(store, config.report_days, newest),
    ]


def prune(store: Store, config: RetentionConfig) -> None:
    """Delete what may go."""
    chosen = removals(store, config)
    for removal in chosen:
        storage.remove(removal.uri)
    if chosen:
        log_line("prune", f"{len(chosen)} deleted that retention no longer keeps, such as {chosen[0].uri}")


def _checkpoints(store: Store, keep: int | None, newest: date, pointers: list[Pointer]) -> Iterator[Removal]:
    """Daily checkpoints but the newest ones up to the last finished run's day, which the next run scores.

    There stay the first, which holds the batch, those whose version a channel points to, and later ones: training may
    be ahead of scoring. Those of a retired arm go as the days pass.
    """
    if keep is None:
        return
    for model in store.trained_models():
        days = [day for day in store.checkpoint_days(model) if day <= newest]
        in_use = {pointer.trained_through for pointer in pointers if pointer.arm == model}
        oldest = newest - timedelta(days=keep - 1)
        is_retired = find_retirement(store, arm_of(model)) is not None
        for day in [day for day in days if day < oldest] if is_retired else days[1:-keep]:
            if day not in in_use:
                why = "its arm is retired, and it is" if is_retired else "it is"
                yield Removal(store.checkpoint(model, day), f"{why} older than the newest {keep} of {model}")


def _versions(store: Store, keep: int | None, pointers: list[Pointer]) -> Iterator[Removal]:
    if keep is None:
        return
    in_use = {pointer.version for pointer in pointers}
    for name in store.deployments():
        deployment = read_deployment(store, name)
        if deployment is not None:
            in_use |= {deployment.current, deployment.other}
        replaced = find_replaced(store, name)
        in_use |= {replaced.version} if replaced is not None else set()
    published: list[str] = []
    days = [(day, pipeline) for pipeline in (BATCH, DAILY) for day in store.publication_days(pipeline)]
    for day, pipeline in sorted(days):
        publication = read_publication(store, pipeline, day)
        published += [version.version for version in publication.versions] if publication else []
    # A version that was published twice is as new as the last time.
    in_order = list(dict.fromkeys(reversed(published)))
    known = set(store.versions())
    for version in in_order[keep:]:
        if version in known and version not in in_use:
            yield Removal(store.version(version), f"not in use, and older than the newest {keep} versions")


def _staged_versions(store: Store) -> Iterator[Removal]:
    """Exports whose run is over: they were published, which is a copy, or withheld."""
    waiting = set()
    for pipeline in (BATCH, DAILY):
        for day in set(store.blessing_days(pipeline)) - set(store.finished_days(pipeline)):
            blessing = read_blessing(store, pipeline, day)
            waiting |= {release.checkpoint_digest for release in blessing.releases} if blessing else set()
    for digest in store.staged_versions():
        if digest not in waiting:
            yield Removal(store.staged_version(digest), "its run is finished")


def _pretrained(store: Store, keep: int | None) -> Iterator[Removal]:
    """Pretrained tables but the newest, and the newest that an arm's batch may have started from."""
    if keep is None:
        return
    days = store.pretrained_days()
    in_use = set()
    for arm in store.trained_models():
        for batch in store.checkpoint_days(arm)[:1]:
            in_use |= {*[day for day in days if day <= batch][-1:]}
    for day in days[:-keep]:
        if day not in in_use:
            yield Removal(store.pretrained(day), f"older than the newest {keep} pretrained tables")


def _log_days(days: list[date], uri_of: Callable[[date], str], keep: int | None, named: str) -> Iterator[Removal]:
    for day in days[:-keep] if keep is not None else []:
        yield Removal(uri_of(day), f"older than the newest {keep} {named}")


def _online_features(store: Store, keep: int | None) -> Iterator[Removal]:
    for settings in store.online_settings():
        days, uri_of = store.online_days(settings), partial(store.online_features, settings)
        yield from _log_days(days, uri_of, keep, "online features")


def _pages(store: Store, keep: int | None, newest: date) -> Iterator[Removal]:
    if keep is None:
        return
    oldest = newest - timedelta(days=keep - 1)
    statistics = ("example_statistics", "early_example_statistics")
    folders = ("reports", "log_verdicts", *statistics, *(f"tensorboard/{model}" for model in store.trained_models()))
    for folder in folders:
        for name in storage.list_names(storage.join_uri(store.root, folder)):
            days = _DAY.findall(name)
            if days and date.fromisoformat(days[-1]) < oldest:
                yield Removal(storage.join_uri(store.root, folder, name), f"older than {keep} days")
    runs = storage.list_names(storage.join_uri(store.root, "kfp"))
    # Named by the moment of the run, after the pipeline's name.
    dated = sorted(runs, key=lambda name: name[match.start() :] if (match := _DAY.search(name)) else "")
    for name in dated[:-keep]:
        yield Removal(storage.join_uri(store.root, "kfp", name), f"older than the newest {keep} runs")
