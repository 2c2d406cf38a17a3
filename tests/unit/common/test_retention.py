"""What retention deletes, and what it never does."""

from __future__ import annotations

from datetime import date, timedelta

import pytest

from components.common import storage
from components.common.deployments import Deployment, write_deployment
from components.common.errors import InputError
from components.common.layout import Store
from components.common.records import write_record
from components.common.releases import (
    EXPERIMENT_CHANNEL,
    PRODUCTION_CHANNEL,
    Blessing,
    Pointer,
    Publication,
    PublishedVersion,
    Release,
)
from components.common.retention import RetentionConfig, prune, removals

FIRST = date(2026, 1, 1)
DAYS = [FIRST + timedelta(days=number) for number in range(12)]
KEEP_ALL = RetentionConfig(checkpoint_days=None, versions=None, report_days=None)


def directory(uri: str) -> None:
    storage.write_bytes(storage.join_uri(uri, storage.MANIFEST_NAME), b"{}")


def point(store: Store, channel: str, day: date, arm: str = "baseline") -> None:
    version = f"version-{day}"
    write_record(
        store.pointer(channel),
        Pointer(version=version, arm=arm, checkpoint_digest="", trained_through=day, published_on=day),
    )


def blessing_of(day: date) -> Blessing:
    release = Release(
        action="refresh", arm="baseline", checkpoint_digest=f"checkpoint-{day}", trained_through=day, reasons=()
    )
    return Blessing(pipeline="daily", event_date=day, production="baseline", releases=(release,), ledger_digest="")


def finish(store: Store, day: date) -> None:
    storage.write_bytes(store.finished_run("daily", day), b"{}")


@pytest.fixture(params=["local", "memory"])
def store(request, tmp_path) -> Store:
    """Twelve finished days, each of which left a checkpoint, an export, a version, pages and a local run."""
    store = Store(str(tmp_path) if request.param == "local" else f"memory://{tmp_path}")
    for day in DAYS:
        for arm in ("baseline", "sparse_optimizer"):
            directory(store.checkpoint(arm, day))
            storage.write_bytes(storage.join_uri(store.tensorboard(arm, day), "events"), b"e")
        version = PublishedVersion(action="refresh", channel="CURRENT", arm="baseline", version=f"version-{day}")
        write_record(
            store.publication("daily", day), Publication(pipeline="daily", event_date=day, versions=(version,))
        )
        directory(store.version(f"version-{day}"))
        directory(store.staged_version(f"checkpoint-{day}"))
        write_record(store.blessing("daily", day), blessing_of(day))
        storage.write_bytes(store.report(f"daily-{day}"), b"page")
        directory(store.example_statistics(day))
        storage.write_bytes(storage.join_uri(store.root, "kfp", f"daily-training-{day}-12-00-00-1", "log"), b"l")
        finish(store, day)
    point(store, PRODUCTION_CHANNEL, DAYS[-1])
    return store


def kept_versions(store: Store) -> list[date]:
    return [date.fromisoformat(name.removeprefix("version-")) for name in store.versions()]


def test_newest_stay_and_what_is_in_use(store):
    point(store, EXPERIMENT_CHANNEL, DAYS[2], "sparse_optimizer")
    write_deployment(
        store, "prod", Deployment(current=f"version-{DAYS[4]}", other=f"version-{DAYS[5]}", phase="ranker")
    )
    prune(store, RetentionConfig(checkpoint_days=3, versions=2, report_days=4))
    assert store.checkpoint_days("baseline") == [DAYS[0], *DAYS[-3:]]
    assert store.checkpoint_days("sparse_optimizer") == [DAYS[0], DAYS[2], *DAYS[-3:]]
    assert kept_versions(store) == [DAYS[2], DAYS[4], DAYS[5], *DAYS[-2:]]
    assert store.staged_versions() == []
    for folder in ("reports", "tensorboard/baseline", "kfp", "example_statistics"):
        assert len(storage.list_names(storage.join_uri(store.root, folder))) == 4
    assert storage.exists(store.report(f"daily-{DAYS[-4]}"))
    assert [store.ledger_days(), len(store.publication_days("daily"))] == [[], 12]
    assert removals(store, RetentionConfig(checkpoint_days=3, versions=2, report_days=4)) == []


def test_a_run_that_is_not_finished_keeps_its_export_and_what_it_scores_next(store):
    storage.remove(store.finished_run("daily", DAYS[-1]))
    storage.remove(store.finished_run("daily", DAYS[-2]))
    prune(store, RetentionConfig(checkpoint_days=2))
    assert store.staged_versions() == [f"checkpoint-{DAYS[-2]}", f"checkpoint-{DAYS[-1]}"]
    assert store.checkpoint_days("baseline") == [DAYS[0], *DAYS[-4:]], "two up to the last finished day, and later ones"


def test_pretrained_tables_stay_while_they_are_new_or_a_batch_started_from_them(store):
    before = [FIRST - timedelta(days=number) for number in (21, 14, 7)]
    weekly = [*before, FIRST + timedelta(days=7)]
    for day in weekly:
        directory(store.pretrained(day))
        directory(store.edges(day))
        directory(store.log_summary(day))
    # The batch ended on the first day.
    prune(store, RetentionConfig(pretrained_tables=1, edge_days=2, summary_days=3))
    assert store.pretrained_days() == weekly[-2:] and store.edge_days() == weekly[-2:]
    assert store.log_summary_days() == weekly[-3:]
    prune(store, RetentionConfig())
    assert store.edge_days() == weekly[-2:]


def test_everything_is_kept_if_asked_for(store):
    prune(store, KEEP_ALL)
    assert len(store.checkpoint_days("baseline")) == len(store.versions()) == 12
    assert len(storage.list_names(storage.join_uri(store.root, "reports"))) == 12


def test_version_that_came_back_is_new(store):
    again = PublishedVersion(action="promote", channel="CURRENT", arm="baseline", version=f"version-{DAYS[1]}")
    day = DAYS[-1] + timedelta(days=1)
    write_record(store.publication("daily", day), Publication(pipeline="daily", event_date=day, versions=(again,)))
    prune(store, RetentionConfig(versions=2))
    assert kept_versions(store) == [DAYS[1], DAYS[-1]]


def test_nothing_goes_while_it_is_uncertain_what_is_in_use(store):
    storage.write_bytes(store.pointer(PRODUCTION_CHANNEL), b"{")
    before = len(store.versions())
    with pytest.raises(InputError, match="CURRENT"):
        prune(store, RetentionConfig(checkpoint_days=2, versions=1, report_days=2))
    assert len(store.versions()) == before == len(store.checkpoint_days("baseline"))


def test_nothing_goes_before_the_first_run_is_finished(tmp_path):
    store = Store(str(tmp_path))
    directory(store.staged_version("x"))
    assert removals(store, RetentionConfig()) == []
