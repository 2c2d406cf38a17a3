"""On a real cluster: the images under the restricted Pod Security Standard, with their store on S3."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from typing import Any

import pytest
import torch
import yaml

from components.common import storage
from components.common.errors import InputError
from components.common.layout import Store
from components.ranker.checkpoint import TrainedRanker, find_checkpoint
from components.train.run import main_batch
from pipelines.cluster import ClusterConfig
from pipelines.config import RunConfig, load_config
from pipelines.resources import StepResources
from pipelines.train_jobs import RUNTIME, TrainJob, run_train_job
from tests.conftest import small_values, write_config
from tests.k8s.cluster import NAMESPACE, address_for_pods, kubectl, needs_cluster
from tests.kfp_api import kfp_api
from tests.s3 import BUCKET
from tests.serving import wait_until

pytestmark = [needs_cluster, pytest.mark.kubernetes, pytest.mark.usefixtures("images")]
BEAM, TRAIN = "localhost/afterclick/beam:0.1.0", "localhost/afterclick/train:0.1.0"
AS_OF = "2026-01-20"


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> RunConfig:
    values = small_values()
    values["train"]["execution"] = {"resume_steps": 2, "tensorboard": False}
    values["train"] |= {"epochs": 3, "optimizer": {"learning_rate": 1e-3, "tables": "lazy_adam"}}
    return load_config(str(write_config(tmp_path_factory.mktemp("config") / "own.yaml", values)))


@pytest.fixture(scope="module")
def joined_on_cluster(namespace: str, config: RunConfig) -> tuple[Store, str]:
    """A store whose examples a Job with the Beam image made; and its configuration's address."""
    store = Store(f"s3://{BUCKET}/cluster")
    config_uri = config.write(store)
    code = f"from pipelines.work import prepare; prepare({(store.root, config_uri, 'run-1')!r}, 'batch', {AS_OF!r})"
    logs = run_job(namespace, "prepare-examples", command=["python", "-c", code])
    assert "schema holds" in logs
    return store, config_uri


def run_job(namespace: str, name: str, **changes: Any) -> str:
    """Run the deploy Job's pod, changed, as a user that its image does not know; returns what it printed."""
    kubectl("-n", namespace, "delete", "job", "afterclick-deploy", "--ignore-not-found")
    overlay = yaml.safe_load_all(kubectl("kustomize", "k8s/overlays/test"))
    job = next(item for item in overlay if item["kind"] == "Job")
    job["metadata"] = {"name": name, "namespace": namespace}
    pod = job["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    container |= {"image": BEAM, **changes}
    container["resources"] = {"requests": {"cpu": "100m", "memory": "1Gi"}, "limits": {"cpu": "2", "memory": "3Gi"}}
    pod["securityContext"] |= {"runAsUser": 12345, "runAsGroup": 23456}
    job["spec"] |= {"backoffLimit": 0, "suspend": False}
    kubectl("apply", "-f", "-", given=yaml.safe_dump(job))
    wait_until(lambda: any(state(namespace, f"job/{name}", kind) for kind in ("Complete", "Failed")), seconds=240)
    logs = kubectl("-n", namespace, "logs", f"job/{name}")
    assert state(namespace, f"job/{name}", "Complete"), logs
    return logs


def state(namespace: str, name: str, kind: str) -> bool:
    path = f"-o=jsonpath={{.status.conditions[?(@.type=='{kind}')].status}}"
    return kubectl("-n", namespace, "get", name, path) == "True"


def pods_of(job: str) -> list[str]:
    names = kubectl("-n", NAMESPACE, "get", "pods", "-l", f"jobset.sigs.k8s.io/jobset-name={job}", "-o", "name")
    return names.split()


def train_job(name: str, command: tuple[str, ...], **given: Any) -> TrainJob:
    values = {"image": TRAIN, "cpu": "600m", "memory": "1Gi", "nodes": 2, "timeout_minutes": 5}
    resources = StepResources(**{**values, **given})
    return TrainJob(name, NAMESPACE, resources, ClusterConfig(accelerator="cpu"), TRAIN, command)


def test_two_nodes_train_what_one_process_trains_though_a_pod_is_killed(joined_on_cluster, config, monkeypatch):
    store, config_uri = joined_on_cluster
    first = config.schedule.first_day
    days = config.dataset.open_days(first, config.dataset.open_day(first, config.schedule.num_batch_days - 1))
    arguments = ("--batch", str(days[0]), str(days[-1]), "--store-uri", store.root, "--config-uri", config_uri)
    job = train_job("train-baseline", ("-m", "components.train", "--arm", "baseline", *arguments))
    lines: list[str] = []
    killed: list[str] = []

    def kill_one() -> None:
        """When there is something to go on from."""
        points = store.resume_points("baseline", days[-1])
        wait_until(lambda: storage.finished_names(points), seconds=120)
        killed.append(pods_of(job.name)[-1])
        kubectl("-n", NAMESPACE, "delete", killed[-1], "--grace-period=0", "--force")

    killer = threading.Thread(target=kill_one)
    killer.start()
    run_train_job(job, start_minutes=1, say=lines.append)
    killer.join()
    assert killed and pods_of(job.name) == []
    assert any("goes on after step" in line for line in lines), lines
    checkpoint = find_checkpoint(store, "baseline", days[-1])
    assert checkpoint is not None and checkpoint.lineage.trained_through == days[-1]

    alone = Store(f"s3://{BUCKET}/alone")
    for folder in ("examples", "clean_logs"):
        for path in storage.list_tree(storage.join_uri(store.root, folder)):
            storage.copy(*(storage.join_uri(place.root, folder, path) for place in (store, alone)))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    main_batch(alone.root, config.write(alone), "baseline", str(days[0]), str(days[-1]))
    models = [TrainedRanker.load(place, "baseline", days[-1]).model.state_dict() for place in (store, alone)]
    for name, value in models[0].items():
        torch.testing.assert_close(value, models[1][name], rtol=1e-3, atol=1e-4, msg=name)


def test_deploy_job_installs_pipelines_and_schedule(namespace):
    with kfp_api(address_for_pods()) as api:
        token = "/var/run/secrets/kubeflow/pipelines/token"
        values = {
            "AFTERCLICK_STORE": f"s3://{BUCKET}/deployed",
            "KF_PIPELINES_ENDPOINT": api.host,
            "KF_PIPELINES_SA_TOKEN_PATH": token,
        }
        printed = run_job(namespace, "deploy", env=[{"name": name, "value": text} for name, text in values.items()])
    assert "schedule afterclick-daily: made" in printed and "run afterclick-batch: started" in printed
    assert len(api.objects["versions"]) == 2 and len(api.objects["runs"]) == 1
    assert api.tokens and all(shown.startswith("Bearer ey") for shown in api.tokens)


@pytest.mark.parametrize(
    ("name", "given", "command", "said"),
    [
        ("fails", {"nodes": 1}, ("--no-python", "sh", "-c", "exit 3"), r"failed: .*exit code 1"),
        ("too-large", {"cpu": "1000"}, ("--no-python", "true"), r"no pod runs after .*Insufficient cpu"),
        ("no-such-image", {}, ("--no-python", "true"), r"no pod runs after"),
    ],
)
def test_training_job_that_cannot_go_on_ends_the_step_with_the_reason(namespace, name, given, command, said):
    job = train_job(name, command, **given)
    if name == "no-such-image":
        job = TrainJob(job.name, NAMESPACE, job.given, job.cluster, "registry.example.com/none:1", command)
    started = time.monotonic()
    with pytest.raises((InputError, RuntimeError), match=said):
        run_train_job(job, start_minutes=0.25)
    assert time.monotonic() - started < 120 and pods_of(name) == []


def test_training_job_that_pod_security_refuses_ends_the_step_with_the_reason(namespace):
    runtime = yaml.safe_load(kubectl("-n", namespace, "get", "trainingruntime", RUNTIME, "-o", "yaml"))
    pod = runtime["spec"]["template"]["spec"]["replicatedJobs"][0]["template"]["spec"]["template"]["spec"]
    del pod["containers"][0]["securityContext"]
    runtime["metadata"] = {"name": RUNTIME, "namespace": namespace, "labels": runtime["metadata"]["labels"]}
    given = kubectl("-n", namespace, "get", "trainingruntime", RUNTIME, "-o", "yaml")
    kubectl("apply", "--server-side", "--force-conflicts", "-f", "-", given=yaml.safe_dump(runtime))
    kubectl("replace", "-f", "-", given=yaml.safe_dump(runtime))
    try:
        with pytest.raises(InputError, match=r"no pod runs after .*violates PodSecurity"):
            run_train_job(train_job("refused", ("--no-python", "true")), start_minutes=1)
    finally:
        whole = yaml.safe_load(given)
        whole["metadata"] = runtime["metadata"]
        kubectl("replace", "-f", "-", given=yaml.safe_dump(whole))
    assert pods_of("refused") == []


def test_object_that_the_api_does_not_know_is_refused_by_name(namespace):
    job = train_job("x" * 49, ("--no-python", "true"))
    with pytest.raises(InputError, match="TrainJob afterclick-test/x+: "):
        run_train_job(job, start_minutes=0.2)


def test_cancelled_step_takes_its_pods_along(namespace):
    code = (
        "import signal, sys; signal.signal(signal.SIGTERM, lambda *_: sys.exit(1));"
        "from tests.k8s.test_on_cluster import train_job; from pipelines.train_jobs import run_train_job;"
        "run_train_job(train_job('cancelled', ('--no-python', 'sleep', '600')), 5)"
    )
    step = subprocess.Popen([sys.executable, "-c", code], env=os.environ)
    wait_until(lambda: len(pods_of("cancelled")) == 2, seconds=60)
    step.send_signal(signal.SIGTERM)
    assert step.wait(timeout=90) == 1
    assert pods_of("cancelled") == []
