"""The lease of a store: one run at a time, on folders and on S3."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator

import pytest

from components.common import lease, storage
from components.common.errors import InputError
from components.common.layout import Store
from components.common.lease import Lease, LeaseRecord, held
from components.common.records import find_record, write_record
from tests.s3 import BUCKET, s3_server


@pytest.fixture(scope="module", params=["local", "s3"])
def place(request, tmp_path_factory) -> Iterator[str]:
    if request.param == "local":
        yield str(tmp_path_factory.mktemp("stores"))
        return
    with s3_server() as server, pytest.MonkeyPatch.context() as patch:
        for name, value in server.environment.items():
            patch.setenv(name, value)
        yield f"s3://{BUCKET}"


@pytest.fixture
def store(place) -> Store:
    return Store(storage.join_uri(place, uuid.uuid4().hex))


def newest(store: Store) -> LeaseRecord:
    record = find_record(store.lease(store.lease_numbers()[-1]), LeaseRecord, "")
    assert record is not None
    return record


def write_foreign(store: Store, silent_seconds: float, **changes: object) -> None:
    """A lease that a run on another machine holds."""
    values = {"holder": "nightly", "host": "elsewhere", "process_id": 1, "heard_at": time.time() - silent_seconds}
    write_record(store.lease(7), LeaseRecord(**{**values, "valid_seconds": 100.0, **changes}))


def test_second_run_is_told_who_holds_it(store):
    with (
        held(store, "first"),
        pytest.raises(InputError, match=r"another process runs on this store \(first, on .* ago"),
    ):
        Lease(store, "second", 100.0).take()
    with held(store, "second"):
        assert newest(store).holder == "second"
    assert newest(store).released and len(store.lease_numbers()) == 1


def test_lease_of_a_silent_machine_is_taken_over(store):
    write_foreign(store, silent_seconds=50)
    with pytest.raises(InputError, match="nightly, on elsewhere, heard of 5"):
        Lease(store, "second", 100.0).take()
    write_foreign(store, silent_seconds=101)
    Lease(store, "second", 100.0).take()
    assert store.lease_numbers() == [8] and newest(store).holder == "second"


def test_lease_of_a_killed_process_is_taken_over_at_once(store):
    code = (
        "import os, signal; from components.common.layout import Store; from components.common.lease import Lease; "
        f"Lease(Store({store.root!r}), 'killed', 1e6).take(); os.kill(os.getpid(), signal.SIGKILL)"
    )
    assert subprocess.run([sys.executable, "-c", code], env=os.environ, check=False).returncode == -9
    assert newest(store).holder == "killed" and newest(store).silent_seconds < 60
    Lease(store, "second", 100.0).take()
    assert newest(store).holder == "second"


def test_processes_of_one_run_share_it(store):
    with held(store, "run", is_last=False):
        pass
    assert not newest(store).released
    with held(store, "run", is_last=True):
        assert len(store.lease_numbers()) == 1
    assert newest(store).released


def test_run_that_fails_lets_go(store):
    with pytest.raises(RuntimeError), held(store, "run", is_last=False):
        raise RuntimeError
    assert newest(store).released


@pytest.fixture(params=[signal.default_int_handler, signal.SIG_IGN], ids=["in front", "in the background"])
def interrupts(request) -> Iterator[None]:
    """As a terminal starts a run, and as a script starts one in its background, where interrupts are ignored."""
    before = signal.signal(signal.SIGINT, request.param)
    yield
    signal.signal(signal.SIGINT, before)


def test_run_that_was_taken_over_ends(store, interrupts):
    with pytest.raises(InputError, match="another run took over"), held(store, "slow", valid_seconds=0.4):
        write_foreign(store, silent_seconds=0)
        deadline = time.monotonic() + 30
        while time.monotonic() < deadline:
            time.sleep(0.02)
    assert newest(store).holder == "nightly" and not newest(store).released
    assert signal.getsignal(signal.SIGUSR1) == signal.SIG_DFL, "as it was before"


def test_steps_of_a_run_that_holds_it_do_not_ask(store, monkeypatch):
    monkeypatch.setenv(lease.HELD_BY, "1")
    with held(store, "step"):
        assert store.lease_numbers() == []
