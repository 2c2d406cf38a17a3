from dataclasses import replace
from datetime import timedelta

import numpy as np
import pyarrow as pa
import pytest

from components.common import parquet_files, storage
from components.common.days import microseconds
from components.common.errors import InputError
from components.common.layout import Store
from components.common.manifests import describe_file, finish_directory, read_manifest
from components.features.examples import EARLY, EVALUATION, NEGATIVE_KEPT, TRAINING, ExamplesManifest
from components.features.feature_list import FeatureConfig
from components.features.log_manifests import LOG_FILE, CleanLogManifest
from components.join.run import join_days, join_early
from components.make_logs.run import make_logs
from data_validation.logs.validate import validate_logs
from tests.conftest import copy_clean_logs
from tests.unit.join.stores import examples, job_of, rewrite


def test_a_day_is_the_same_alone_and_within_a_range(joined, logs):
    """Also with another number of buckets, and a later cut-off."""
    day = joined.batch_days[1]
    job = job_of(joined, day, day)
    job = replace(
        job, config=job.config.model_copy(update={"rows_per_shard": 3000}), as_of=job.as_of + timedelta(days=2)
    )
    join_days(logs.root, job)
    alone, within = examples(logs, TRAINING, day), examples(joined.store, TRAINING, day)
    assert alone.equals(within)
    of_day = [read_manifest(store.examples(TRAINING, day), ExamplesManifest) for store in (joined.store, logs)]
    assert of_day[0].content_digest == of_day[1].content_digest


def test_finished_days_are_left_alone_and_missing_ones_made(joined, logs):
    first, last = joined.batch_days[0], joined.batch_days[1]
    counts = join_days(logs.root, job_of(joined, first, last, evaluate_from=joined.scored_day))
    assert counts["impressions"] == counts["impressions_kept"] + counts["impressions_sampled_out"]
    assert counts["actions"] == counts["actions_attributed"] + counts["actions_unattributed"]
    assert join_days(logs.root, job_of(joined, first, last, evaluate_from=joined.scored_day)) == {}
    storage.remove(logs.examples(TRAINING, last))
    again = join_days(logs.root, job_of(joined, first, last, evaluate_from=joined.scored_day))
    assert 0 < again["impressions"] < counts["impressions"]


def test_the_future_is_not_seen(joined, logs):
    """Planting the answer after the impressions changes labels at most, never a feature."""
    day = joined.scored_day
    before = examples(joined.store, EVALUATION, day)
    for planted in joined.config.dataset.days_read(day, day, 0):
        if planted > day:
            rewrite(logs, "actions", planted, lambda table, on=planted: _with_answers(before, table, on))
    join_days(logs.root, job_of(joined, day, day))
    after = examples(logs, EVALUATION, day)
    labels = {"clicked", "good_clicked", "add_to_carts", "checkouts", "conversion_value"}
    features = [name for name in before.column_names if name not in labels]
    assert after.select(features).equals(before.select(features))
    assert np.sum(after["checkouts"].to_numpy()) > np.sum(before["checkouts"].to_numpy())


def _with_answers(shown, like, day):
    """A day's actions and one checkout per impression shown, early on that later day."""
    count = shown.num_rows
    users = pa.array(np.arange(count) % 4000)
    columns = {
        "action_id": pa.array(10**9 + np.arange(count)),
        "timestamp": pa.array(np.full(count, microseconds(day) + 1)).cast(like.schema.field("timestamp").type),
        "user_id": users,
        "action_type": pa.array(["checkout"] * count),
        "source": pa.array(["offsite"] * count),
    }
    for field in like.schema:
        if field.name not in columns:
            columns[field.name] = (
                pa.array(np.arange(count) % 100) if field.name == "campaign_id" else pa.nulls(count, field.type)
            )
    return pa.concat_tables([like, pa.table({f.name: columns[f.name].cast(f.type) for f in like.schema})])


def test_immature_days_are_refused(joined):
    day = joined.batch_days[0]
    with pytest.raises(InputError, match="labels of .* are final from"):
        join_days(joined.store.root, replace(job_of(joined, day, day), as_of=day + timedelta(days=1)))


def test_missing_clean_logs_are_named(joined, tmp_path):
    day = joined.batch_days[0]
    with pytest.raises(InputError, match="no finished clean_logs"):
        join_days(str(tmp_path), job_of(joined, day, day))


def test_down_sampling_keeps_every_positive_and_the_hash_s_negatives(joined):
    kept, all_rows = (examples(joined.store, split, joined.scored_day) for split in (TRAINING, EVALUATION))
    positive = np.zeros(all_rows.num_rows, dtype=bool)
    for label in ("clicked", "add_to_carts", "checkouts"):
        positive |= all_rows[label].to_numpy() > 0
    expected = all_rows.filter(pa.array(positive | all_rows[NEGATIVE_KEPT].to_numpy()))
    assert kept.equals(expected)
    assert kept.num_rows < all_rows.num_rows
    assert all_rows["label_mature"].to_numpy().all()


def test_join_works_on_a_remote_filesystem(joined):
    """The memory filesystem stands in for a bucket: no path of it exists on disk."""
    config, store, day = joined.config, Store("memory://join-test"), joined.scored_day
    read = config.dataset.days_read(day, day, config.features.history_days)
    make_logs(store.root, config.dataset, config.source.model_dump(mode="json"), read)
    validate_logs(store.root, config.dataset, config.validation, read, read[-1] + timedelta(days=1))
    join_days(store.root, job_of(joined, day, day))
    assert examples(store, EVALUATION, day).equals(examples(joined.store, EVALUATION, day))


def test_rows_lost_on_the_way_stop_the_join(joined, logs):
    """The clean logs hold fewer rows than their manifests say, as if the runner had dropped some."""
    day = joined.scored_day
    folder = logs.clean_logs("actions", day)
    uri = storage.join_uri(folder, LOG_FILE)
    parquet_files.write_parquet(uri, parquet_files.read_parquet(uri).slice(1))
    finish_directory(folder, read_manifest(folder, CleanLogManifest), [describe_file(folder, LOG_FILE)])
    for _ in range(2):
        with pytest.raises(RuntimeError, match="reached the join"):
            join_days(logs.root, job_of(joined, day, day))
    assert not logs.example_days(EVALUATION) and not logs.example_days(TRAINING)


def test_day_without_actions_is_joined(joined, logs):
    day = joined.scored_day
    rewrite(logs, "actions", day, lambda table: table.slice(0, 0))
    assert join_days(logs.root, job_of(joined, day, day))["actions"] == 0


def test_late_action_rebuilds_only_the_days_that_it_can_touch(joined, logs):
    """And gives what a run with all data would."""
    first, last = joined.batch_days[0], joined.scored_day
    dataset, history = joined.config.dataset, joined.config.features.history_days
    job = job_of(joined, first, last, evaluate_from=last)
    days = dataset.open_days(first, last)
    join_days(logs.root, job)
    before = {day: read_manifest(logs.examples(TRAINING, day), ExamplesManifest) for day in days}
    late_on = days[1] + timedelta(days=dataset.maturity_days)
    rewrite(logs, "actions", late_on, lambda table: _with_late_action(table, late_on))
    counts = join_days(logs.root, job)
    after = {day: read_manifest(logs.examples(TRAINING, day), ExamplesManifest) for day in days}
    touched = [day for day in days if late_on in dataset.days_read(day, day, history)]
    assert [day for day in days if after[day].origin != before[day].origin] == touched
    assert first not in touched and counts["impressions"] == sum(
        read_manifest(logs.clean_logs("impressions", day), CleanLogManifest).rows for day in touched
    )
    from_scratch = copy_clean_logs(replace(joined, store=logs), logs.root + "-again")
    join_days(from_scratch.root, job)
    for day in days:
        expected = read_manifest(from_scratch.examples(TRAINING, day), ExamplesManifest)
        assert after[day].content_digest == expected.content_digest


def _with_late_action(table, day):
    late = table.slice(0, 1)
    for name, value in (("action_id", 10**12), ("timestamp", microseconds(day) + 5)):
        field = table.schema.field(name)
        late = late.set_column(table.schema.get_field_index(name), field, pa.array([value]).cast(field.type))
    return pa.concat_tables([table, late])


def test_early_examples_hold_what_is_known_when_the_day_ends(joined, logs):
    """The same rows and features as in the end, fewer positives; joining the day again later changes nothing."""
    day = joined.batch_days[1]
    join_early(logs.root, job_of(joined, day, day), [day])
    early = examples(logs, EARLY, day)
    assert not early["label_mature"].to_numpy().any()
    assert not storage.exists(logs.examples(TRAINING, day))
    join_days(logs.root, job_of(joined, day, day))
    final = examples(logs, EVALUATION, day)
    labels = ["clicked", "good_clicked", "add_to_carts", "checkouts", "conversion_value", "label_mature"]
    kept = final.filter(pa.array(np.isin(final["impression_id"].to_numpy(), early["impression_id"].to_numpy())))
    assert early.drop(labels).equals(kept.drop(labels))
    for name in ("clicked", "add_to_carts", "checkouts"):
        assert (early[name].to_numpy() <= kept[name].to_numpy()).all()
    assert 0 < early["checkouts"].to_numpy().sum() < kept["checkouts"].to_numpy().sum()
    digest = read_manifest(logs.examples(EARLY, day), ExamplesManifest).content_digest
    join_early(logs.root, job_of(joined, day, day), [day])
    assert read_manifest(logs.examples(EARLY, day), ExamplesManifest).content_digest == digest


def test_windows_longer_than_histories_are_read(joined, logs):
    """Touches before the first feature day still compete for conversions."""
    dataset = joined.config.dataset
    assert dataset.days_read(joined.scored_day, joined.scored_day, 1)[0] == joined.scored_day - timedelta(
        days=dataset.maturity_days + 1
    )
    values = joined.config.features.model_dump()
    values["counts"]["windows_days"], values["engagement"]["window_days"] = (1,), 1
    job = replace(
        job_of(joined, joined.scored_day, joined.scored_day), features=FeatureConfig.parse(values, "features")
    )
    join_days(logs.root, job)
    labels = ["impression_id", "clicked", "add_to_carts", "checkouts", "conversion_value"]
    assert (
        examples(logs, EVALUATION, joined.scored_day)
        .select(labels)
        .equals(examples(joined.store, EVALUATION, joined.scored_day).select(labels))
    )
