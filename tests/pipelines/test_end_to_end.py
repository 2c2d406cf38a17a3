"""Whole pipelines through kfp's local runner: published, blocked by the gate, stopped by validation, killed."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
import urllib.request
from datetime import timedelta
from pathlib import Path

import pytest

from components.common import storage
from components.common.layout import Store
from components.common.ledger import read_ledger
from components.common.releases import read_pointer
from pipelines.config import load_config
from tests.conftest import every_kind, small_values, write_config, write_vectors
from tests.s3 import BUCKET, s3_server
from tests.serving import free_port

AFTERCLICK = [sys.executable, "-m", "cli.main"]
# Any candidate passes that is scored on days enough.
OPEN_GATE = {"min_gain_percent": -100.0, "max_objective_loss_percent": 100.0}


def afterclick(*arguments: str, expect: int = 0, cwd: Path | None = None) -> str:
    """Run the command line; returns what it printed."""
    environment = {**os.environ, "COLUMNS": "200"}
    command = [*AFTERCLICK, *arguments]
    found = subprocess.run(command, capture_output=True, text=True, check=False, env=environment, cwd=cwd)
    assert found.returncode == expect, found.stdout + found.stderr
    return found.stdout + found.stderr


def config_file(tmp_path: Path, **changes: dict) -> str:
    """`small_values` with exact ids and sections changed."""
    values = small_values()
    values |= {"features": every_kind(values["features"]), "vectors": write_vectors(tmp_path)}
    for section, change in changes.items():
        values[section] = {**values.get(section, {}), **change}
    return str(write_config(tmp_path / "config.yaml", values))


def ledger_bytes(store: Store) -> dict[str, bytes]:
    """Every file of the ledger."""
    return {str(path.relative_to(store.root)): path.read_bytes() for path in Path(store.root, "ledger").rglob("*.json")}


@pytest.fixture(scope="module")
def batch_done(tmp_path_factory) -> Store:
    """A finished batch run, which the daily runs of several tests start from."""
    root = tmp_path_factory.mktemp("batch")
    store = Store(str(root / "store"))
    afterclick("run", "-c", config_file(root, gate=OPEN_GATE), "-s", store.root, "--max-days", "0")
    assert store.finished_days("batch") and not store.finished_days("daily")
    return store


def copy_of(store: Store, root: Path) -> Store:
    shutil.copytree(store.root, root / "store")
    return Store(str(root / "store"))


@pytest.fixture(scope="module")
def published(batch_done, tmp_path_factory):
    """Two daily runs after the batch, whose candidate is promoted, whatever its AUC."""
    root = tmp_path_factory.mktemp("published")
    store = copy_of(batch_done, root)
    config = config_file(root, gate=OPEN_GATE)
    printed = afterclick("run", "-c", config, "-s", store.root, "--max-days", "2")
    return store, config, printed


def test_blessed_candidate_is_published(published):
    store, _, printed = published
    assert "daily 2026-01-12: blessed=True" in printed and "promoted=True" in printed
    pointer = read_pointer(store)
    assert pointer is not None and pointer.arm == "sparse_optimizer"
    assert len(store.versions()) == 2
    assert [day.day for day in store.finished_days("batch")] == [11]
    assert [day.day for day in store.finished_days("daily")] == [11, 12]
    assert Path(store.newest_report()).stat().st_size > 1_000_000


def test_store_on_s3_that_fails_now_and_then_holds_the_same(published, tmp_path, monkeypatch):
    """Throttled, answered with errors, done but not answered: ledger and versions are those of a local store."""
    store, config, _ = published
    with s3_server() as server:
        server.restart_counts(fail_share=0.02)
        for name, value in server.environment.items():
            monkeypatch.setenv(name, value)
        remote = Store(f"s3://{BUCKET}/shops/a store")
        run = ("run", "-c", config, "-s", remote.root, "--max-days", "1")
        afterclick(*run, cwd=tmp_path)
        assert [name for name in server.counts() if name.split()[1] in ("500", "503")]
        server.restart_counts()
        assert "nothing is due" in afterclick(*run, cwd=tmp_path)
        folder = storage.join_uri(remote.root, "ledger")
        held = {f"ledger/{path}": storage.read_bytes(f"{folder}/{path}") for path in storage.list_tree(folder)}
        assert len(held) == 3 and held.items() <= ledger_bytes(store).items()
        assert set(remote.versions()) < set(store.versions())
        shown = json.loads(afterclick("show", "-s", remote.root, "--json"))
        assert shown["channels"]["CURRENT"]["version"] in store.versions()


def test_pipeline_outputs_tell_published_from_blocked(published, tmp_path):
    """A blocked run also ends in success: only the pipeline's own outputs tell."""
    store, _, _ = published
    closed = [json.loads(Path(store.finished_run("daily", day)).read_bytes()) for day in store.finished_days("daily")]
    assert [run["blessed"] for run in closed] == [False, True]
    assert closed[1]["promoted"] and closed[1]["published"] == read_pointer(store).version
    assert not closed[0]["published"] and not closed[0]["promoted"]


def test_second_call_does_nothing(published):
    store, config, _ = published
    before = ledger_bytes(store)
    printed = afterclick("run", "-c", config, "-s", store.root, "--max-days", "2")
    assert "nothing is due" in printed
    assert ledger_bytes(store) == before


def test_show_prints_what_a_script_needs(published):
    store, _, _ = published
    shown = json.loads(afterclick("show", "-s", store.root, "--json"))
    assert shown["channels"]["CURRENT"]["version"] == read_pointer(store).version
    assert shown["daily_days"] == ["2026-01-11", "2026-01-12"]
    assert shown["arms"]["baseline"][-1] == "2026-01-12"
    assert set(shown["auc"]["2026-01-12"]) == {"baseline", "sparse_optimizer", "served"}
    assert 0 < shown["auc"]["2026-01-12"]["sparse_optimizer"]["checkout_given_view"] < 1
    assert shown["verdict"]["blessed"] and shown["verdict"]["reasons"]
    assert "show.published: " + read_pointer(store).version in afterclick("show", "-s", store.root)


def test_prune_says_what_would_go(published):
    store, config, _ = published
    staged = store.staged_versions()
    assert len(staged) == 1, "the last run's; those of earlier runs went when they were finished"
    printed = afterclick("prune", "-c", config, "-s", store.root, "--dry-run")
    assert f"{store.staged_version(staged[0])}: its run is finished" in printed
    assert "prune.would_remove: 1" in printed and store.staged_versions() == staged


def test_predict_answers_with_the_published_version(published):
    store, _, _ = published
    lines = afterclick("predict", "-s", store.root, "--limit", "3", "--json").splitlines()
    rows = [json.loads(line) for line in lines if line.startswith("{")]
    assert len(rows) == 3
    assert {row["version"] for row in rows} == {read_pointer(store).version}
    assert all(0 < row["checkout_given_click"] < 1 for row in rows)


def test_servers_answer_a_request_from_the_logs(published, tmp_path):
    """As a new user would: make a request, serve, ask, and move to the other version and back."""
    store, _, _ = published
    request, ports = tmp_path / "request.json", [free_port() for _ in range(4)]
    printed = afterclick("request", "-s", store.root)
    request.write_text(printed)
    names = ("--grpc-port", "--http-port", "--embedding-grpc-port", "--embedding-http-port")
    flags = [text for name, port in zip(names, ports, strict=True) for text in (name, str(port))]
    ranker, embedding = f"localhost:{ports[0]}", f"localhost:{ports[2]}"
    addresses = ("--ranker-servers", ranker, "--embedding-servers", embedding, "--hold-seconds", "0")
    current = read_pointer(store).version
    other = next(version for version in store.versions() if version != current)
    process = subprocess.Popen(
        [*AFTERCLICK, "serve", "local", "-s", store.root, *flags], stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
    try:
        assert process.stdout is not None
        assert any(line.startswith(b"serve.embedding") for line in process.stdout), "the servers did not get ready"
        for version in (current, other, current):
            moved = afterclick("rollout", "-s", store.root, "--to", version[:12], *addresses)
            assert f"rollout.version: {version}" in moved
            answer = json.loads(afterclick("predict", str(request), "--server", ranker, "--json").splitlines()[0])
            assert answer["version"] == version and 0 < answer["checkout_given_view"] < 1
        body = afterclick("request", "-s", store.root, "--rest").encode()
        url = f"http://localhost:{ports[1]}/v2/models/ranker/infer"
        posted = urllib.request.Request(url, body, {"Content-Type": "application/json"})
        with urllib.request.urlopen(posted) as found:
            assert json.load(found)["model_version"] == current
        assert "error: --to abc: 0 of the versions" in afterclick("rollout", "-s", store.root, "--to", "abc", expect=1)
        assert "INVALID_ARGUMENT" in _ask_without_a_user(request, tmp_path / "wrong.json", ranker)
    finally:
        process.terminate()
        assert process.wait(timeout=30) == 0


def _ask_without_a_user(request: Path, wrong: Path, ranker: str) -> str:
    wrong.write_text(json.dumps({**json.loads(request.read_text()), "user": {"timestamp": "2026-01-05T13:00:00Z"}}))
    printed = afterclick("predict", str(wrong), "--server", ranker, expect=1)
    assert "Traceback" not in printed
    return printed


def test_candidate_below_the_threshold_is_blocked(batch_done, tmp_path):
    config = config_file(tmp_path, gate={"min_gain_percent": 100.0})
    store = copy_of(batch_done, tmp_path)
    printed = afterclick("run", "-c", config, "-s", store.root, "--max-days", "2")
    assert "daily 2026-01-11: blessed=False published=nothing promoted=False" in printed
    assert "daily 2026-01-12: blessed=False" in printed and "is below the threshold +100.00%" in printed
    pointer = read_pointer(store)
    assert pointer is not None and pointer.arm == "baseline"


def test_days_are_trained_on_early_and_scored_when_they_are_final(batch_done, tmp_path):
    config = config_file(tmp_path, schedule={"train_immature": True})
    store = copy_of(batch_done, tmp_path)
    afterclick("run", "-c", config, "-s", store.root, "--max-days", "2")
    scored, ahead = store.finished_days("daily"), store.checkpoint_days("sparse_optimizer")
    assert ahead[-1] - scored[-1] == timedelta(days=load_config(config).dataset.maturity_days)
    row = next(row for row in read_ledger(store) if row.event_date == scored[-1] and row.arm == "sparse_optimizer")
    assert row.trained_through == scored[-1] - timedelta(days=1)
    page = storage.read_bytes(store.newest_report()).decode()
    assert "How labels moved" in page and str(scored[-1]) in page.split("How labels moved")[1]


def test_validation_stops_the_run(tmp_path):
    config = config_file(tmp_path, validation={"min_impressions_per_day": 10_000_000})
    printed = afterclick("run", "-c", config, "-s", str(tmp_path / "store"), expect=1)
    assert "error: validate-logs: the logs do not meet" in printed
    assert "Traceback" not in printed
    store = Store(str(tmp_path / "store"))
    assert read_pointer(store) is None and read_ledger(store) == [] and store.finished_days("batch") == []
    assert not storage.exists(store.examples("training", store.clean_days()[0]))
    config = config_file(tmp_path, validation={"label_density": {"checkouts": {"at_least": 0.99}}})
    printed = afterclick("run", "-c", config, "-s", str(tmp_path / "store"), expect=1)
    assert "error: validate-examples: examples of 2026-01-07 break the schema: checkouts" in printed


def test_run_that_is_killed_twice_gives_the_same_ledger(published, tmp_path):
    """kill -9 of everything at a random moment of each half of the run, and each time the same command again."""
    uninterrupted, config, printed = published
    seed = random.SystemRandom().randrange(2**32)
    chance = random.Random(seed)
    store = Store(str(tmp_path / "store"))
    command = ["run", "-c", config, "-s", store.root, "--max-days", "2"]
    # The batch run prints about as many lines as the two daily ones.
    num_lines = 2 * printed.count("\n  ")
    moments = [(1 + int(num_lines * chance.uniform(0, 0.5)), chance.uniform(0, 3.0)) for _ in range(2)]
    for num_printed, seconds in moments:
        process = subprocess.Popen([*AFTERCLICK, *command], stdout=subprocess.PIPE, text=True, start_new_session=True)
        assert process.stdout is not None
        for _ in range(num_printed):
            process.stdout.readline()
        time.sleep(seconds)
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    where = f"killed after lines and seconds {moments} of {num_lines}, seed {seed}"
    afterclick(*command)
    assert ledger_bytes(store) == ledger_bytes(uninterrupted), where
    assert read_pointer(store) == read_pointer(uninterrupted), where
    assert store.finished_days("daily") == uninterrupted.finished_days("daily"), where


def test_errors_are_one_line(tmp_path):
    printed = afterclick("run", "-c", "no-such", "-s", str(tmp_path), expect=1)
    assert len(printed.strip().splitlines()) == 1 and printed.startswith("error: no-such: no such configuration")
    assert "Traceback" in afterclick("run", "-c", "no-such", "-s", str(tmp_path), "--debug", expect=1)
    printed = afterclick("show", "-s", str(tmp_path / "absent"), "--json", expect=1)
    assert "no such store" in printed


@pytest.mark.parametrize("command", [[], ["demo"], ["run"], ["compile"], ["predict"], ["show"]])
def test_help_teaches(command):
    printed = afterclick(*command, "--help")
    assert "Usage" in printed
    if command:
        assert "--debug" in printed and "--store" in printed
