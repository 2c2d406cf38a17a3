"""`afterclick deploy` against the API that it talks to: what is sent, and that a second call changes nothing."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from components.common.layout import Store
from components.common.records import write_record
from components.common.runs import RunOutcome
from tests.conftest import small_values, write_config
from tests.kfp_api import KfpApi, kfp_api
from tests.pipelines.test_end_to_end import afterclick


@pytest.fixture
def api() -> Iterator[KfpApi]:
    with kfp_api() as running:
        yield running


def deploy(api: KfpApi, folder: Path, *options: str, pretrain: dict | None = None, **cluster: object) -> str:
    values = {**small_values(), "cluster": {"service_account": "afterclick-steps", **cluster}}
    if pretrain is not None:
        values["pretrain"] = pretrain
    config = write_config(folder / "own.yaml", values)
    return afterclick("deploy", "-c", str(config), "-s", str(folder / "store"), "--host", api.host, *options)


def test_pipelines_schedule_and_batch_are_installed_once(api, tmp_path):
    printed = deploy(api, tmp_path)
    assert "schedule afterclick-daily: made" in printed and "run afterclick-batch: started" in printed
    names = [pipeline["display_name"] for pipeline in api.objects["pipelines"]]
    assert names == ["afterclick-batch-training", "afterclick-daily-training"]
    (schedule,) = api.objects["recurringruns"]
    daily, version = api.objects["pipelines"][1], api.objects["versions"][1]
    assert schedule["pipeline_version_reference"] == {
        "pipeline_id": daily["pipeline_id"],
        "pipeline_version_id": version["pipeline_version_id"],
    }
    assert int(schedule["max_concurrency"]) == 1 and schedule["no_catchup"] is True
    assert schedule["trigger"]["cron_schedule"]["cron"] == "0 0 * * * *"
    assert schedule["service_account"] == "afterclick-steps"
    parameters = schedule["runtime_config"]["parameters"]
    assert Path(parameters["config_uri"]).exists() and parameters["store_uri"] == str(tmp_path / "store")
    spec = next(iter(yaml.safe_load_all(version["file"])))
    assert spec["pipelineInfo"]["name"] == "daily-training"
    (run,) = api.objects["runs"]
    assert run["display_name"] == "afterclick-batch" and run["runtime_config"]["parameters"] == parameters

    run["state"] = "RUNNING"
    before = [*api.changes]
    printed = deploy(api, tmp_path)
    assert api.changes == before
    assert printed.count("is there") == 4 and "run afterclick-batch: goes on" in printed


def test_what_changed_is_replaced_and_nothing_else(api, tmp_path):
    deploy(api, tmp_path)
    write_record(
        Store(str(tmp_path / "store")).finished_run("batch", "2026-01-11"),
        RunOutcome(event_date="2026-01-11", blessed=False, published="", promoted=False, reasons=()),
    )
    before = len(api.changes)
    printed = deploy(api, tmp_path, daily_cron="0 30 2 * * *")
    assert "schedule afterclick-daily: replaced (0 30 2 * * *)" in printed
    assert "run afterclick-batch: is finished" in printed
    # Another configuration is another address, but the same pipelines.
    assert [change.split()[:2] for change in api.changes[before:]] == [
        ["DELETE", "recurringruns"],
        ["POST", "recurringruns"],
    ]
    assert len(api.objects["recurringruns"]) == 1
    printed = deploy(api, tmp_path, daily_cron="0 30 2 * * *", run_deadline_hours=3)
    assert printed.count("uploaded") == 2 and len(api.objects["versions"]) == 4 and len(api.objects["pipelines"]) == 2


def test_pretraining_has_a_schedule_where_there_is_a_section_for_it(api, tmp_path):
    printed = deploy(api, tmp_path, pretrain={"embedding_dim": 8}, pretraining_cron="0 0 5 * * 6")
    assert "schedule afterclick-pretraining: made (0 0 5 * * 6)" in printed
    assert [pipeline["display_name"] for pipeline in api.objects["pipelines"]][-1] == "afterclick-pretraining"
    daily, weekly = api.objects["recurringruns"]
    assert weekly["trigger"]["cron_schedule"]["cron"] == "0 0 5 * * 6" and int(weekly["max_concurrency"]) == 1
    assert weekly["pipeline_version_reference"] != daily["pipeline_version_reference"]


def test_dry_run_sends_nothing(api, tmp_path):
    printed = deploy(api, tmp_path, "--dry-run")
    assert api.changes == [] and not (tmp_path / "store").exists()
    assert printed.count("would be: ") == 6 and "would be: run afterclick-batch: started" in printed


def test_server_that_does_not_answer_is_named_without_a_traceback(tmp_path):
    config = write_config(tmp_path / "own.yaml", small_values())
    arguments = ("deploy", "-c", str(config), "-s", str(tmp_path / "store"), "--host", "http://127.0.0.1:9")
    printed = afterclick(*arguments, expect=1)
    assert "Kubeflow Pipelines refused" in printed and "Traceback" not in printed
