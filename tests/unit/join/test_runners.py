"""The same bytes from every way of running the join that can be had without a JVM."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from dataclasses import replace

import pytest

from components.common.layout import Store
from components.common.manifests import read_manifest
from components.features.examples import EVALUATION, TRAINING, ExamplesManifest
from components.join.run import join_days
from tests.conftest import Deployment, copy_clean_logs
from tests.unit.join.stores import job_of

_SECONDS = 120


@pytest.fixture()
def worker_pool(tmp_path):
    """A Beam worker pool in a process of its own, as it would stand beside a Flink task manager."""
    with socket.socket() as reserved:
        reserved.bind(("localhost", 0))
        port = reserved.getsockname()[1]
    # The pool starts `python` from the path for every worker.
    path = os.path.dirname(sys.executable) + os.pathsep + os.environ["PATH"]
    with open(tmp_path / "pool.log", "wb") as log:
        pool = subprocess.Popen(
            [sys.executable, "-m", "apache_beam.runners.worker.worker_pool_main", f"--service_port={port}"],
            env={**os.environ, "PATH": path, "PYTHONUNBUFFERED": "1"},
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    try:
        deadline = time.monotonic() + _SECONDS
        while True:
            assert pool.poll() is None and time.monotonic() < deadline, (tmp_path / "pool.log").read_text()
            with socket.socket() as probe:
                if probe.connect_ex(("localhost", port)) == 0:
                    break
            time.sleep(0.1)
        yield f"localhost:{port}"
    finally:
        os.killpg(pool.pid, signal.SIGKILL)
        pool.wait()


def digests(store: Store, deployment: Deployment) -> list[str]:
    """What the examples of two days hold, byte by byte."""
    day, before = deployment.scored_day, deployment.batch_days[-1]
    places = [store.examples(TRAINING, before), store.examples(TRAINING, day), store.examples(EVALUATION, day)]
    return [read_manifest(place, ExamplesManifest).content_digest for place in places]


def join_with(deployment: Deployment, root: str, *options: str) -> tuple[list[str], dict[str, int]]:
    """Join two days in a store of their own."""
    store = copy_clean_logs(deployment, root)
    job = job_of(deployment, deployment.batch_days[-1], deployment.scored_day, evaluate_from=deployment.scored_day)
    config = job.config.model_copy(update={"beam_options": options, "rows_per_shard": 5000})
    counts = join_days(store.root, replace(job, config=config))
    return digests(store, deployment), counts


def test_two_processes_write_the_same_bytes_and_count_the_same(joined, tmp_path):
    one = join_with(joined, str(tmp_path / "one"), "--runner=FnApiRunner")
    two = join_with(
        joined,
        str(tmp_path / "two"),
        "--runner=FnApiRunner",
        "--direct_running_mode=multi_processing",
        "--direct_num_workers=2",
    )
    assert one == two
    assert one[0] == digests(joined.store, joined)
    assert one[1]["impressions"] > 0


def test_portability_layer_with_an_external_worker_pool_writes_the_same_bytes(joined, tmp_path, worker_pool):
    found, counts = join_with(
        joined,
        str(tmp_path / "portable"),
        "--runner=PortableRunner",
        "--job_endpoint=embed",
        "--environment_type=EXTERNAL",
        f"--environment_config={worker_pool}",
        f"--job_server_timeout={_SECONDS}",
    )
    assert found == digests(joined.store, joined)
    assert counts["impressions"] > 0


_JOIN = """
import sys
from components.join import run
config_uri, store, first, last, as_of = sys.argv[1:]
run.main(store, config_uri, (first, last), as_of, last, [])
"""


@pytest.mark.parametrize("sign", ["/scratch/join-", "examples written"])
def test_killed_join_starts_again_and_writes_the_same_bytes(joined, tmp_path, sign):
    """Killed when the first file between the stages is there, and when the first day is finished."""
    store = copy_clean_logs(joined, str(tmp_path / "store"))
    job = job_of(joined, joined.batch_days[-1], joined.scored_day, evaluate_from=joined.scored_day)
    arguments = [joined.config.write(store), store.root, str(job.first_day), str(job.last_day), str(job.as_of)]
    with open(tmp_path / "join.log", "wb") as log:
        process = subprocess.Popen([sys.executable, "-c", _JOIN, *arguments], stdout=log, stderr=log)
        deadline = time.monotonic() + _SECONDS
        while process.poll() is None and time.monotonic() < deadline:
            written = [str(path) for path in tmp_path.glob("store/scratch/join-*")]
            if any(sign in text for text in [*written, (tmp_path / "join.log").read_text()]):
                process.kill()
        assert process.wait() == -signal.SIGKILL, (tmp_path / "join.log").read_text()
    join_days(store.root, job)
    assert digests(store, joined) == digests(joined.store, joined)
    assert not os.listdir(tmp_path / "store" / "scratch")
