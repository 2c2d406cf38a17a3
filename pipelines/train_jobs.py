"""Training over several GPUs or nodes: a step starts a Kubeflow TrainJob, watches it, and takes it along in the end."""

from __future__ import annotations

import hashlib
import re
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kubernetes import client, config
from kubernetes.client.exceptions import ApiException

from components.common.errors import InputError
from components.common.progress import ERROR_PREFIX, log_line
from pipelines.cluster import ClusterConfig
from pipelines.resources import StepResources

RUNTIME = "afterclick-torch"
_GROUP = {"group": "trainer.kubeflow.org", "version": "v1alpha1", "plural": "trainjobs"}
_NAMESPACE_FILE = Path("/var/run/secrets/kubernetes.io/serviceaccount/namespace")
_MAX_NAME = 48
_POLL_SECONDS = 1.0
# A controller that refuses a pod says so within seconds; a node for it may take minutes.
_REFUSED_SECONDS = 10.0
_GONE_SECONDS = 60.0


@dataclass(frozen=True)
class TrainJob:
    """One training job.

    Attributes:
        name: At most 48 characters, with a letter first.
        namespace: Where.
        given: Nodes, and what each of them gets.
        cluster: What all pods of the runs get.
        image: The container image.
        command: What each process runs, under torchrun.
    """

    name: str
    namespace: str
    given: StepResources
    cluster: ClusterConfig
    image: str
    command: tuple[str, ...]

    @property
    def body(self) -> dict[str, Any]:
        """The object for Kubernetes."""
        given = self.given
        resources: dict[str, Any] = {"cpu": given.cpu, "memory": given.memory}
        if given.gpus:
            resources[self.cluster.gpu_type] = given.gpus
        spec: dict[str, Any] = {
            "runtimeRef": {"apiGroup": _GROUP["group"], "kind": "TrainingRuntime", "name": RUNTIME},
            "activeDeadlineSeconds": given.timeout_minutes * 60,
            "trainer": {
                "image": self.image,
                "numNodes": given.nodes,
                "numProcPerNode": max(given.gpus, 1),
                "resourcesPerNode": {"requests": resources, "limits": resources},
                "command": ["torchrun", *self.command],
                "env": self._environment(),
            },
        }
        pods: dict[str, Any] = {
            "nodeSelector": given.node_selector,
            "tolerations": [toleration.model_dump(exclude_none=True) for toleration in given.tolerations]
            if given.gpus
            else [],
            "imagePullSecrets": [{"name": name} for name in self.cluster.image_pull_secrets],
        }
        pods = {key: value for key, value in pods.items() if value}
        if pods:
            jobs = [{"name": "node", "template": {"spec": {"template": {"spec": pods}}}}]
            patch = {"trainingRuntimeSpec": {"template": {"spec": {"replicatedJobs": jobs}}}}
            spec["runtimePatches"] = [{"manager": "afterclick.io/steps", **patch}]
        metadata = {"name": self.name, "namespace": self.namespace, "labels": self.cluster.labels}
        return {"apiVersion": "trainer.kubeflow.org/v1alpha1", "kind": "TrainJob", "metadata": metadata, "spec": spec}

    def _environment(self) -> list[dict[str, Any]]:
        plain = [{"name": name, "value": value} for name, value in self.cluster.environment.items()]
        return plain + [
            {"name": given.name, "valueFrom": {"secretKeyRef": {"name": given.secret, "key": given.key}}}
            for given in self.cluster.secrets
        ]


def job_name(arm: str, *identity: str) -> str:
    """A name that is the same for the same arm and identity: of a run that is tried again, too."""
    digest = hashlib.sha256("/".join((arm, *identity)).encode()).hexdigest()[:10]
    readable = re.sub(r"[^a-z0-9]+", "-", arm.lower()).strip("-")
    return f"train-{readable[: _MAX_NAME - 18].rstrip('-')}-{digest}"


def current_namespace(fallback: str) -> str:
    """The namespace of this pod, or `fallback` outside of a cluster."""
    return _NAMESPACE_FILE.read_text().strip() if _NAMESPACE_FILE.exists() else fallback


def run_train_job(job: TrainJob, start_minutes: float, say: Callable[[str], None] = print) -> None:
    """Run a TrainJob to its end; its first process's log is said line by line. Whatever happens, it is deleted.

    Raises:
        InputError: If it is refused or cannot be scheduled, or training says that its input is not usable.
        RuntimeError: If training fails for another reason.
    """
    _connect()
    objects = client.CustomObjectsApi()
    place = {**_GROUP, "namespace": job.namespace}
    _delete(objects, job, place)
    try:
        objects.create_namespaced_custom_object(**place, body=job.body, field_validation="Strict")
    except ApiException as error:
        raise InputError(f"TrainJob {job.namespace}/{job.name}: refused: {_message(error)}") from error
    log_line("train", f"TrainJob {job.name}: {job.given.nodes} nodes, {max(job.given.gpus, 1)} processes each")
    try:
        _watch(objects, job, place, start_minutes, say)
    finally:
        _delete(objects, job, place)


def _watch(
    objects: client.CustomObjectsApi,
    job: TrainJob,
    place: dict[str, str],
    start_minutes: float,
    say: Callable[[str], None],
) -> None:
    started, has_run = time.monotonic(), False
    with _logs_of_first(job, say) as lines:
        while True:
            status = objects.get_namespaced_custom_object(**place, name=job.name).get("status", {})
            ended = {c["type"]: c for c in status.get("conditions", []) if c["status"] == "True"}
            if "Complete" in ended:
                return
            pods = _pods(job)
            has_run = has_run or any(pod.status.phase != "Pending" for pod in pods)
            if "Failed" in ended:
                raise _failure(job, ended["Failed"], pods, lines)
            waited = time.monotonic() - started
            if not has_run and (waited > start_minutes * 60 or (not pods and waited > _REFUSED_SECONDS)):
                reason = _why_waiting(job, pods)
                if reason or waited > start_minutes * 60:
                    raise InputError(
                        f"TrainJob {job.namespace}/{job.name}: no pod runs after {waited:.0f} s: "
                        f"{reason or 'its controller says nothing'}; give the step less, or the cluster more"
                    )
            time.sleep(_POLL_SECONDS)


def _failure(job: TrainJob, condition: dict[str, Any], pods: Sequence[Any], lines: Sequence[str]) -> Exception:
    """What a failed job's processes said last, or its condition."""
    said = [line.removeprefix(ERROR_PREFIX) for line in lines if line.startswith(ERROR_PREFIX)]
    ends = [
        f"{pod.metadata.name} {container.state.terminated.reason} with exit code {container.state.terminated.exit_code}"
        for pod in pods
        for container in pod.status.container_statuses or []
        if container.state.terminated and container.state.terminated.exit_code
    ]
    reason = "; ".join([*said[-1:], *ends]) or f"{condition.get('reason')}: {condition.get('message')}"
    return (InputError if said else RuntimeError)(f"TrainJob {job.namespace}/{job.name} failed: {reason}")


def _why_waiting(job: TrainJob, pods: Sequence[Any]) -> str:
    """The newest event of the job's pods, or of the Job that should make them."""
    names = [pod.metadata.name for pod in pods] or [f"{job.name}-node-0"]
    found = client.CoreV1Api().list_namespaced_event(job.namespace)
    texts = [event.message for event in found.items if event.involved_object.name in names and event.type == "Warning"]
    return " ".join(texts[-1].split()) if texts else ""


def _pods(job: TrainJob) -> list[Any]:
    selector = f"jobset.sigs.k8s.io/jobset-name={job.name}"
    return list(client.CoreV1Api().list_namespaced_pod(job.namespace, label_selector=selector).items)


@contextmanager
def _logs_of_first(job: TrainJob, say: Callable[[str], None]) -> Iterator[list[str]]:
    """Say what the first process prints, also after its pod was started again; yields the lines so far."""
    lines: list[str] = []
    stop = threading.Event()

    def follow() -> None:
        seen: set[str] = set()
        while not stop.wait(_POLL_SECONDS / 2):
            with suppress(ApiException, OSError):
                first = [pod for pod in _pods(job) if pod.metadata.name.startswith(f"{job.name}-node-0-0")]
                for pod in first:
                    if pod.metadata.uid not in seen and pod.status.phase != "Pending":
                        seen.add(pod.metadata.uid)
                        for line in _lines_of(pod):
                            lines.append(line)
                            say(line)

    thread = threading.Thread(target=follow, daemon=True)
    thread.start()
    try:
        yield lines
    finally:
        stop.set()
        # A log that is being followed ends with its pod.
        thread.join(timeout=5)


def _lines_of(pod: Any) -> Iterator[str]:
    answer = client.CoreV1Api().read_namespaced_pod_log(
        pod.metadata.name, pod.metadata.namespace, follow=True, _preload_content=False
    )
    rest = b""
    for part in answer.stream():
        *whole, rest = (rest + part).split(b"\n")
        yield from (line.decode(errors="replace") for line in whole)
    if rest:
        yield rest.decode(errors="replace")


def _delete(objects: client.CustomObjectsApi, job: TrainJob, place: dict[str, str]) -> None:
    """Delete a job, and wait until it and its pods are gone."""
    deadline = time.monotonic() + _GONE_SECONDS
    with suppress(ApiException):
        objects.delete_namespaced_custom_object(**place, name=job.name, propagation_policy="Background")
    is_there = True
    while time.monotonic() < deadline and (is_there or _pods(job)):
        time.sleep(_POLL_SECONDS / 2)
        with suppress(ApiException):
            objects.get_namespaced_custom_object(**place, name=job.name)
            continue
        is_there = False


def _connect() -> None:
    try:
        config.load_incluster_config()
    except config.ConfigException:
        config.load_kube_config()


def _message(error: ApiException) -> str:
    return " ".join(str(error.body or error.reason).split())
