"""Two processes under torchrun, killed and started again."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from components.common import storage
from components.common.layout import Store
from components.ranker.checkpoint import find_checkpoint
from pipelines.config import load_config
from tests.conftest import Deployment, every_kind, small_values, write_config, write_vectors

TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "--standalone", "-m"]


@pytest.fixture(scope="module")
def config_file(tmp_path_factory) -> str:
    values = small_values()
    folder = tmp_path_factory.mktemp("config")
    values |= {"features": every_kind(values["features"]), "vectors": write_vectors(folder)}
    values["train"] |= {"epochs": 2, "optimizer": {"learning_rate": 1e-3, "tables": "lazy_adam"}}
    values["train"]["execution"] = {"resume_steps": 2, "device": "cpu", "tensorboard": False}
    return str(write_config(folder / "own.yaml", values))


def start(joined: Deployment, store: Store, config_file: str) -> subprocess.Popen:
    config_uri = load_config(config_file).write(store)
    days = ["--batch", str(joined.batch_days[0]), str(joined.batch_days[-1])]
    place = ["--store-uri", store.root, "--config-uri", config_uri, "--arm", "sparse_optimizer"]
    command = [*TORCHRUN, "components.train", *place, *days]
    return subprocess.Popen(command, env={**os.environ, "OMP_NUM_THREADS": "1"}, start_new_session=True)


def own_copy(joined: Deployment, folder: Path) -> Store:
    for name in ("examples", "vectors"):
        shutil.copytree(Path(joined.store.root, name), folder / name)
    return Store(str(folder))


def digest(joined: Deployment, store: Store) -> str:
    checkpoint = find_checkpoint(store, "sparse_optimizer", joined.batch_days[-1])
    assert checkpoint is not None
    return checkpoint.content_digest


def test_two_processes_that_are_killed_go_on_to_the_same_bits(joined, config_file, tmp_path):
    left_alone, killed = own_copy(joined, tmp_path / "alone"), own_copy(joined, tmp_path / "killed")
    assert start(joined, left_alone, config_file).wait() == 0
    process = start(joined, killed, config_file)
    points, deadline = killed.resume_points("sparse_optimizer", joined.batch_days[-1]), time.monotonic() + 120
    while not storage.finished_names(points):
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.02)
    os.killpg(process.pid, signal.SIGKILL)
    assert process.wait() != 0 and find_checkpoint(killed, "sparse_optimizer", joined.batch_days[-1]) is None
    assert start(joined, killed, config_file).wait() == 0
    assert digest(joined, killed) == digest(joined, left_alone)
    assert storage.list_names(points) == []
