"""Identifiers that come again, and of either type."""

from dataclasses import replace
from datetime import timedelta
from functools import partial

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest

from components.common import parquet_files, storage
from components.common.errors import InputError
from components.common.manifests import read_manifest, write_artifact
from components.features.examples import EVALUATION, TRAINING, ExamplesManifest
from components.features.log_manifests import LOG_FILE, CleanLogManifest
from components.join.assemble import IDENTIFIERS
from components.join.run import join_days
from tests.conftest import Deployment, copy_clean_logs
from tests.unit.join.logs import HOUR
from tests.unit.join.stores import examples, job_of, rewrite

SPLITS = (EVALUATION, TRAINING)


def clean_file(store, log_name, day):
    return storage.join_uri(store.clean_logs(log_name, day), LOG_FILE)


def test_identifiers_that_start_again_every_day_stop_the_join(joined, logs):
    day, before = joined.scored_day, joined.batch_days[-1]
    older = parquet_files.read_parquet(storage.join_uri(logs.clean_logs("impressions", before), LOG_FILE))

    def reuse(table):
        for position, name in ((0, "impression_id"), (2, "user_id")):
            table = table.set_column(position, name, pa.array(np.resize(older[name].to_numpy(), len(table))))
        return table

    rewrite(logs, "impressions", day, reuse)
    with pytest.raises(InputError, match="an id that was used on the day before"):
        join_days(logs.root, job_of(joined, day, day))


def test_identifier_of_another_week_is_another_impression(joined, logs):
    """Whatever other days a run reads, so a day is the same alone and within a range."""
    day, first = joined.scored_day, joined.batch_days[0]
    long_ago = joined.config.dataset.days_read(day, day, joined.config.features.history_days)[1]
    older_uri = storage.join_uri(logs.clean_logs("impressions", long_ago), LOG_FILE)
    older = parquet_files.read_parquet(older_uri).slice(0, 20)

    def reuse(table):
        for position, name in ((0, "impression_id"), (2, "user_id")):
            values = pa.concat_arrays([older[name].combine_chunks(), table[name].slice(20).combine_chunks()])
            table = table.set_column(position, name, values)
        return table

    rewrite(logs, "impressions", day, reuse)
    counts = join_days(logs.root, job_of(joined, first, day, evaluate_from=day))
    within = read_manifest(logs.examples(EVALUATION, day), ExamplesManifest)
    storage.remove(logs.examples(EVALUATION, day))
    join_days(logs.root, job_of(joined, day, day))
    alone = read_manifest(logs.examples(EVALUATION, day), ExamplesManifest)
    assert alone.content_digest == within.content_digest
    assert counts["impressions_duplicate"] == 0


def test_identifier_of_the_day_before_is_a_repeat(joined, logs):
    day, before = joined.scored_day, joined.batch_days[-1]
    for log_name, name in (("impressions", "impression_id"), ("actions", "action_id")):
        older = parquet_files.read_parquet(storage.join_uri(logs.clean_logs(log_name, before), LOG_FILE)).slice(0, 3)

        def reuse(table, older=older, name=name):
            for column in (name, "user_id"):
                values = pa.concat_arrays([older[column].combine_chunks(), table[column].slice(3).combine_chunks()])
                table = table.set_column(table.column_names.index(column), column, values)
            return table

        rewrite(logs, log_name, day, reuse)
    counts = join_days(logs.root, job_of(joined, day, day))
    assert counts["impressions_duplicate"] == counts["actions_duplicate"] == 3


def digests(store, job):
    join_days(store.root, job)
    return [read_manifest(store.examples(split, job.first_day), ExamplesManifest).content_digest for split in SPLITS]


def sharded(job, rows_per_shard):
    return replace(job, config=job.config.model_copy(update={"rows_per_shard": rows_per_shard}))


def test_examples_depend_neither_on_the_shards_nor_on_the_stores_place(joined, logs, tmp_path):
    """Also with events at the same moment, and with ids that one user had yesterday and another has today."""
    day, before = joined.scored_day, joined.batch_days[-1]
    older = {name: parquet_files.read_parquet(clean_file(logs, name, before)) for name in IDENTIFIERS}
    for log_name, name in IDENTIFIERS.items():

        def change(table, taken=None, name=name):
            hours = table["timestamp"].cast(pa.int64()).to_numpy() // HOUR * HOUR
            table = table.set_column(1, "timestamp", pa.array(hours).cast(table.schema.field("timestamp").type))
            if taken is None:
                return table
            values = pa.concat_arrays([taken[name].combine_chunks(), table[name].slice(len(taken)).combine_chunks()])
            return table.set_column(0, name, values)

        assert older[log_name].column_names[:2] == [name, "timestamp"]
        rewrite(logs, log_name, before, change)
        rewrite(logs, log_name, day, partial(change, taken=older[log_name].slice(0, 40)))
    job = job_of(joined, day, day)
    expected = digests(logs, sharded(job, 10**9))
    elsewhere = copy_clean_logs(Deployment(logs, joined.config, joined.batch_days, day), str(tmp_path / "elsewhere"))
    assert digests(elsewhere, sharded(job, 300)) == expected


def test_repeats_are_not_counted_as_engagement(joined, logs, tmp_path):
    """The rates of a day are those of logs that never held the repeats."""
    day, before, earlier = joined.scored_day, joined.batch_days[-1], joined.batch_days[-2]
    job = job_of(joined, day, day)
    without = digests(logs, job)
    for log_name in IDENTIFIERS:
        shown = parquet_files.read_parquet(clean_file(logs, log_name, earlier)).slice(0, 40)
        moments = pc.add(shown["timestamp"], pa.scalar(timedelta(days=1)))
        again = shown.set_column(1, "timestamp", moments.cast(shown.schema.field("timestamp").type))
        rewrite(logs, log_name, before, lambda table, again=again: pa.concat_tables([table, again]))
    assert digests(logs, job) == without


def test_text_identifiers_and_shards_without_impressions(joined, logs):
    """The same examples as with integers, also where a shard holds nothing of a log."""
    day = joined.scored_day
    for log_name in ("impressions", "actions"):
        for read in joined.config.dataset.days_read(day, day, joined.config.features.history_days):
            uri = logs.clean_logs(log_name, read)
            manifest = read_manifest(uri, CleanLogManifest)
            table = parquet_files.read_parquet(storage.join_uri(uri, LOG_FILE))
            position = table.column_names.index("impression_id")
            table = table.set_column(position, "impression_id", table["impression_id"].cast(pa.string()))
            identifiers = {**manifest.identifiers, "impression_id": "string"}
            write_artifact(
                uri,
                manifest.model_copy(update={"identifiers": identifiers}),
                lambda staged, table=table: parquet_files.write_parquet(storage.join_uri(staged, LOG_FILE), table),
            )
    job = job_of(joined, day, day)
    job = replace(job, config=job.config.model_copy(update={"rows_per_shard": 20, "rows_per_file": 100}))
    join_days(logs.root, job)
    found, expected = examples(logs, EVALUATION, day), examples(joined.store, EVALUATION, day)
    found = found.set_column(0, "impression_id", found["impression_id"].cast(pa.int64()))
    order = [("impression_id", "ascending")]
    assert (
        found.sort_by(order)
        .drop(["negative_kept"])
        .equals(
            expected.sort_by(order)
            .drop(["negative_kept"])
            .cast(found.schema.remove(found.schema.names.index("negative_kept")))
        )
    )
