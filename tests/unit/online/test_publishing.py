"""Online features from log summaries: what they hold, and that they are made once, whole, and alike."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from datetime import timedelta

import numpy as np
import pyarrow as pa
import pytest

from components.common import parquet_files, storage
from components.common.days import microseconds
from components.common.errors import InputError
from components.common.layout import Store
from components.common.retention import RetentionConfig, removals
from components.features.events import ACTIONS
from components.features.examples import EVALUATION, read_examples
from components.features.feature_list import ENGAGEMENT_RATES
from components.features.hashed_actions import schema_of
from components.features.hashing import hash_identifiers
from components.features.log_manifests import LOG_FILE
from components.features.online_features import ACTIONS_FILE, OnlineFeatures, online_digest
from components.join.run import join_days
from components.online.config import OnlineConfig
from components.online.run import main, newest_actions, publish_online
from tests.conftest import copy_clean_logs, with_every_kind
from tests.unit.join.stores import job_of, rewrite


@pytest.fixture(scope="module")
def deployment(joined):
    return with_every_kind(joined)


@pytest.fixture
def logs(deployment, tmp_path) -> Store:
    return copy_clean_logs(deployment, str(tmp_path / "store"))


def job_for(deployment, day, **changes):
    return job_of(deployment, day, day, as_of=day, evaluate_from=day, **changes)


def published(store, deployment, day):
    job = job_for(deployment, day)
    return publish_online(store, job, OnlineConfig()), OnlineFeatures.open(store, job.features, day - timedelta(days=1))


def clean_rows(store, log_name, day):
    return parquet_files.read_parquet(storage.join_uri(store.clean_logs(log_name, day), LOG_FILE))


def test_engagement_is_that_of_the_examples(deployment, logs):
    day, features = deployment.scored_day, deployment.config.features
    _, online = published(logs, deployment, day)
    assert online.until == microseconds(day)
    names = list(features.engagement_names)
    examples, _ = read_examples(deployment.store, EVALUATION, day, ["impression_id", *names])
    impressions = clean_rows(deployment.store, "impressions", day)
    rows = {value: row for row, value in enumerate(impressions["impression_id"].to_pylist())}
    order = [rows[value] for value in examples["impression_id"].to_pylist()]
    entities = {entity: hash_identifiers(impressions[entity])[order] for entity in features.engagement.entities}
    known = online.look_up(1, entities)
    assert known.engagement.keys() == {*names}
    for name, values in known.engagement.items():
        assert values.dtype == np.float32 and np.array_equal(values, examples[name].to_numpy()), name
    volumes = known.engagement["item_id_impressions"]
    assert len(np.unique(volumes)) > 20 and (volumes == 0).any()


def test_actions_are_those_of_the_history_in_order(deployment, logs):
    day, features = deployment.scored_day, deployment.config.features
    manifest, online = published(logs, deployment, day)
    read = [day - timedelta(days=back) for back in range(1, features.history_days + 1)]
    there = [clean_rows(logs, ACTIONS, one) for one in read if storage.exists(logs.clean_logs(ACTIONS, one))]
    table = pa.concat_tables(there)
    assert manifest.actions == len(table) and manifest.left_out == 0
    users = hash_identifiers(table["user_id"])
    for user in np.unique(users)[:50]:
        own = table.filter(pa.array(users == user))
        actions = online.look_up(int(user), {}).actions
        order = np.lexsort((hash_identifiers(own["action_id"]), own["timestamp"].cast(pa.int64()).to_numpy()))
        assert np.array_equal(actions.times, own["timestamp"].cast(pa.int64()).to_numpy()[order])
        assert np.array_equal(actions.identifiers, hash_identifiers(own["action_id"])[order])
        assert np.array_equal(actions.entities["item_id"], hash_identifiers(own["item_id"])[order])
        assert (actions.users == user).all()


def test_unknown_users_and_values_get_what_new_ones_get(deployment, logs):
    _, online = published(logs, deployment, deployment.scored_day)
    known = online.look_up(7, {"item_id": np.array([12345, 0], dtype=np.uint64)})
    assert len(known.actions) == 0 and len(known.engagement) == 1 + len(ENGAGEMENT_RATES)
    for name, (new, absent) in known.engagement.items():
        assert new == absent and (new == 0) == (name == "item_id_impressions"), name


def test_newest_actions_of_a_user_are_kept(deployment):
    schema = schema_of(deployment.config.features)
    users, times = [9, 2, 9, 9, 2], [5, 1, 3, 4, 2]
    columns = {"user": users, "timestamp": times, "action_type": [0] * 5, "action": [1, 2, 3, 4, 5]}
    columns |= {name: [0] * 5 for name in schema.names if name.startswith("of_")}
    table = pa.table(columns, schema=schema)
    index, kept = newest_actions(table, 2)
    assert index.to_pydict() == {"user": [2, 9], "first": [0, 2]}
    assert kept["timestamp"].to_pylist() == [1, 2, 4, 5]
    index, kept = newest_actions(table.slice(0, 0), 2)
    assert len(index) == len(kept) == 0


def test_same_logs_give_the_same_bytes_and_are_published_once(deployment, logs, tmp_path):
    """Whether summaries were there, and however users were spread over shards."""
    day = deployment.scored_day
    manifest, _ = published(logs, deployment, day)
    uri = logs.online_features(online_digest(deployment.config.features), day - timedelta(days=1))
    written = os.stat(storage.join_uri(uri, ACTIONS_FILE)).st_mtime_ns
    assert published(logs, deployment, day)[0] == manifest
    assert os.stat(storage.join_uri(uri, ACTIONS_FILE)).st_mtime_ns == written
    other = copy_clean_logs(deployment, str(tmp_path / "other"))
    config = deployment.config.join.model_copy(update={"rows_per_shard": 700})
    join_days(other.root, job_of(deployment, day, day, config=config))
    again, _ = published(other, deployment, day)
    assert again.to_bytes() == manifest.to_bytes()


def test_log_that_is_delivered_again_makes_another(deployment, logs):
    day = deployment.scored_day
    manifest, before = published(logs, deployment, day)
    rewrite(logs, ACTIONS, day - timedelta(days=1), lambda table: table.slice(3))
    again, online = published(logs, deployment, day)
    assert again.actions == manifest.actions - 3 and online.digest != before.digest
    # What was mapped before stays as it was.
    assert before.actions.num_rows == manifest.actions


def test_run_publishes_for_the_day_after_its_newest_log(deployment, logs):
    config = deployment.config.model_copy(update={"online": OnlineConfig()})
    as_of = deployment.scored_day + timedelta(days=1)
    main(logs.root, config.write(logs), str(as_of))
    settings = online_digest(config.features)
    assert logs.online_settings() == [settings] and logs.online_days(settings) == [deployment.scored_day]
    with pytest.raises(InputError, match="has no clean logs of a day before 2001"):
        main(logs.root, config.write(logs), "2001-01-01")


def test_configurations_without_them_are_what_they_were(deployment):
    values = deployment.config.model_dump(mode="json")
    assert "online" not in values and "online_days" not in values["retention"]
    with_online = deployment.config.model_copy(update={"online": OnlineConfig()}).model_dump(mode="json")
    assert with_online["online"] == {"max_actions": 20_000}


@pytest.mark.parametrize("name", ["actions.arrow", "users.arrow", "engagement.arrow", "manifest.json"])
def test_damaged_or_missing_files_are_refused(deployment, logs, name):
    day, features = deployment.scored_day, deployment.config.features
    published(logs, deployment, day)
    path = storage.join_uri(logs.online_features(online_digest(features), day - timedelta(days=1)), name)
    content = bytearray(storage.read_bytes(path))
    content[len(content) // 2] ^= 0xFF
    storage.write_bytes(path, bytes(content))
    with pytest.raises(InputError, match=name.replace(".", r"\.")):
        OnlineFeatures.open(logs, features, day - timedelta(days=1))
    storage.remove(path)
    with pytest.raises(InputError):
        OnlineFeatures.open(logs, features, day - timedelta(days=1))


_KILLED = """
import os, signal, sys
from datetime import date
from components.common import parquet_files, storage
from components.online.run import main
write, written = storage.writing, []
def killed(uri):
    if "online_features" in uri:
        written.append(uri)
        if len(written) == 3:
            os.kill(os.getpid(), signal.SIGKILL)
    return write(uri)
storage.writing = killed
main(*sys.argv[1:])
"""


def test_killed_halfway_leaves_nothing_to_readers(deployment, logs):
    day, features = deployment.scored_day, deployment.config.features
    config = deployment.config.model_copy(update={"online": OnlineConfig()})
    arguments = (logs.root, config.write(logs), str(day))
    found = subprocess.run([sys.executable, "-c", _KILLED, *arguments], capture_output=True, check=False)
    assert found.returncode == -signal.SIGKILL, found.stderr
    assert logs.online_days(online_digest(features)) == []
    main(*arguments)
    assert logs.online_days(online_digest(features)) == [day - timedelta(days=1)]
    folder = storage.join_uri(logs.root, "online_features", online_digest(features))
    assert os.listdir(folder) == [f"event_date={day - timedelta(days=1)}"]


def test_retention_keeps_the_newest(deployment, tmp_path):
    store, day = Store(str(tmp_path)), deployment.scored_day
    for back in range(5):
        uri = store.online_features("a" * 64, day - timedelta(days=back))
        storage.write_bytes(storage.join_uri(uri, storage.MANIFEST_NAME), b"{}")
    storage.write_bytes(store.finished_run("daily", day), b"{}")
    gone = [removal.uri for removal in removals(store, RetentionConfig())]
    assert gone == [store.online_features("a" * 64, day - timedelta(days=back)) for back in (4, 3)]
