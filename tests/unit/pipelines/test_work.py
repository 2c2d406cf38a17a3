"""What the pods of a pipeline do when something is in their way."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from datetime import timedelta

import pytest

from components.common.errors import InputError, TransientError
from components.common.layout import Store
from components.common.lease import LeaseRecord, held
from components.common.records import find_record
from components.features.online_features import online_digest
from components.online.config import OnlineConfig
from pipelines import work


@pytest.fixture(autouse=True)
def no_pauses(monkeypatch):
    monkeypatch.setattr(work, "_PAUSES_SECONDS", (0, 0))


def newest_lease(store: Store) -> LeaseRecord:
    record = find_record(store.lease(store.lease_numbers()[-1]), LeaseRecord, "")
    assert record is not None
    return record


def failing(*errors: Exception):
    left = list(errors)

    def attempt() -> str:
        if left:
            raise left.pop(0)
        return "done"

    return attempt


def test_what_may_pass_by_itself_is_tried_again(capsys):
    assert work.attempted("join-examples", failing(TransientError("busy"), TransientError("busy"))) == "done"
    assert capsys.readouterr().out.count("join-examples: again in 0 s: busy") == 2


def test_third_failure_is_the_steps(capsys):
    with pytest.raises(TransientError):
        work.attempted("join-examples", failing(*[TransientError("busy")] * 3))
    assert "[afterclick-error] busy" in capsys.readouterr().out


@pytest.mark.parametrize(("error", "raised"), [(InputError("wrong"), SystemExit), (ValueError("a fault"), ValueError)])
def test_wrong_input_and_faults_are_not_tried_again(error, raised, capsys):
    with pytest.raises(raised):
        work.attempted("join-examples", failing(error))
    assert "again in" not in capsys.readouterr().out


def test_run_without_work_lets_go_of_the_store(joined, tmp_path):
    store = Store(str(tmp_path))
    addresses = (store.root, joined.config.write(store), "run-1")
    chosen, pages = work.prepare(addresses, "daily", "2026-01-20")
    assert not chosen.due and "nothing is due" in pages[0]
    assert newest_lease(store).released


def test_online_features_are_published_with_the_examples_if_they_are_asked_for(joined, tmp_path):
    store = Store(shutil.copytree(joined.store.root, str(tmp_path / "store")))
    as_of = joined.config.dataset.mature_on(joined.scored_day) + timedelta(days=1)
    settings = online_digest(joined.config.features)
    for online, days in ((None, []), (OnlineConfig(), [as_of - timedelta(days=1)])):
        config = joined.config.model_copy(update={"online": online})
        work.prepare((store.root, config.write(store), "run-1"), "batch", str(as_of))
        assert store.online_days(settings) == days


def test_second_run_is_ended_by_the_lease_of_the_first(joined, tmp_path, capsys):
    store = Store(str(tmp_path))
    config_uri = joined.config.write(store)
    with held(store, "run-1", is_last=False), pytest.raises(SystemExit) as ended:
        work.prepare((store.root, config_uri, "run-2"), "daily", "2026-01-20")
    assert ended.value.code == os.EX_DATAERR
    assert "another process runs on this store (run-1, on" in capsys.readouterr().out


def test_pod_that_is_told_to_end_lets_go_of_the_store(tmp_path):
    code = (
        "import os, signal; from pipelines.work import working\n"
        f"with working('evaluate', {str(tmp_path)!r}, 'run-1'): os.kill(os.getpid(), signal.SIGTERM)"
    )
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, check=False)
    assert ended.returncode == 128 + signal.SIGTERM, ended.stderr
    assert newest_lease(Store(str(tmp_path))).released
