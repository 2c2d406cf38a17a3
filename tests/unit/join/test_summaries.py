"""Days joined night by night, of summaries that earlier nights made, against one run over all logs."""

from __future__ import annotations

from dataclasses import replace

import pyarrow as pa
import pytest

from components.common import storage
from components.common.layout import Store
from components.common.manifests import read_manifest
from components.features.examples import EVALUATION, TRAINING, ExamplesManifest
from components.features.feature_list import FeatureConfig
from components.join.run import join_days
from components.join.summaries import Reading, SummaryManifest
from tests.conftest import copy_clean_logs
from tests.unit.join.stores import job_of, rewrite


@pytest.fixture()
def readings(monkeypatch) -> list[Reading]:
    """What every run of the join found out that it reads."""
    found: list[Reading] = []
    of = Reading.of

    def noted(*arguments) -> Reading:
        found.append(of(*arguments))
        return found[-1]

    monkeypatch.setattr(Reading, "of", noted)
    return found


def digests(store: Store, days) -> list[str]:
    splits = [(split, day) for split in (TRAINING, EVALUATION) for day in days]
    return [read_manifest(store.examples(split, day), ExamplesManifest).content_digest for split, day in splits]


def summaries(store: Store) -> dict[str, str]:
    folder = storage.join_uri(store.root, "log_summaries")
    names = storage.list_names(folder)
    return {n: read_manifest(storage.join_uri(folder, n), SummaryManifest).content_digest for n in names}


def with_repeats_of(before: pa.Table) -> object:
    """A day's log in which some rows have the ids and users of the day before."""

    def change(table: pa.Table) -> pa.Table:
        repeated = before.slice(0, 5).set_column(
            before.schema.get_field_index("timestamp"), "timestamp", table["timestamp"].slice(0, 5)
        )
        return pa.concat_tables([table, repeated.cast(table.schema)])

    return change


def test_nights_give_what_one_run_gives(joined, logs, readings):
    """Also with ids that are used again on the next day, of which features must not know twice."""
    days = [*joined.batch_days, joined.scored_day]
    read = joined.config.dataset.days_read(days[0], days[-1], joined.config.features.history_days)
    for name in ("impressions", "actions"):
        kept: dict = {}
        for day in read:
            rewrite(logs, name, day, lambda table, on=day, log=kept: log.setdefault(on, table))
        for before, day in zip(read[::2], read[1::2], strict=False):
            rewrite(logs, name, day, with_repeats_of(kept[before]))
    at_once = copy_clean_logs(replace(joined, store=logs), logs.root + "-at-once")
    config = joined.config.join.model_copy(update={"max_duplicate_share": 1.0})
    join_days(at_once.root, job_of(joined, days[0], days[-1], config=config))
    assert not readings[0].history and len(readings[0].missing) == len(summaries(at_once))
    for day in days:
        join_days(logs.root, job_of(joined, day, day, config=config, evaluate_from=days[0]))
    for night in readings[2:]:
        assert len(night.missing) == 1 and len(night.history) == 2
        assert min(night.history) < min(night.logs)
    assert digests(logs, days) == digests(at_once, days)
    assert summaries(logs) == summaries(at_once)


@pytest.mark.parametrize("log_name", ["impressions", "actions"])
def test_a_log_that_is_delivered_again_is_summarised_again(joined, logs, readings, log_name):
    first, last = joined.batch_days[0], joined.scored_day
    for day in (first, last):
        join_days(logs.root, job_of(joined, day, day))
    (oldest, *_) = readings[-1].history
    before = summaries(logs)
    rewrite(logs, log_name, oldest, lambda table: table.slice(7))
    join_days(logs.root, job_of(joined, last, last))
    # The repeats of the day after it are told by it as well.
    remade = {name for name, digest in summaries(logs).items() if before[name] != digest}
    assert f"event_date={oldest}" in remade and len(remade) <= 2
    assert {*readings[-1].missing} == {day for day in readings[-1].missing if 0 <= (day - oldest).days <= 1}
    from_scratch = copy_clean_logs(replace(joined, store=logs), logs.root + "-again")
    join_days(from_scratch.root, job_of(joined, last, last))
    assert digests(logs, [last]) == digests(from_scratch, [last])


def test_what_is_missing_or_of_other_features_is_made(joined, logs, readings):
    first, last = joined.batch_days[0], joined.scored_day
    join_days(logs.root, job_of(joined, last, last))
    expected, made = digests(logs, [last]), summaries(logs)
    storage.remove(logs.examples(TRAINING, last))
    storage.remove(storage.join_uri(logs.root, "log_summaries", sorted(made)[1]))
    join_days(logs.root, job_of(joined, last, last))
    assert [len(reading.missing) for reading in readings] == [len(made), 1]
    assert digests(logs, [last]) == expected and summaries(logs) == made
    values = joined.config.features.model_dump()
    values["engagement"]["entities"] = ("campaign_id",)
    job = job_of(joined, last, last, features=FeatureConfig.parse(values, "features"))
    join_days(logs.root, job)
    assert len(readings[-1].missing) == len(made) and first in readings[-1].missing
