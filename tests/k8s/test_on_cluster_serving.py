"""On a real cluster with KServe: both tiers on a store on S3, with TLS, under load of which no request may be lost."""

from __future__ import annotations

import http.client
import json
import ssl
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import grpc
import numpy as np
import pytest
import yaml
from kserve.protocol.grpc import grpc_predict_v2_pb2_grpc as pb_grpc

from components.common import storage
from components.common.deployments import Deployment as Record
from components.common.deployments import read_deployment
from components.common.layout import Store
from components.version.wire_names import Ranking
from tests.certificates import Authority
from tests.conftest import Deployment
from tests.k8s.cluster import kubectl, needs_cluster
from tests.k8s.conftest import SERVING
from tests.published import Published, publish_both
from tests.s3 import BUCKET
from tests.serving import Load, ask_grpc, ask_rest, wait_until
from tests.spoiled import publish_spoiled

pytestmark = [needs_cluster, pytest.mark.kubernetes]
STORE = f"s3://{BUCKET}/serving"
HOSTS = ("afterclick-embedding", "afterclick-rankers", "afterclick-ranker-predictor")
AUTHORITY = Authority("serving", *HOSTS)
RANKER, EMBEDDING = "deployment/afterclick-ranker-predictor", "statefulset/afterclick-embedding"
WORKLOADS = (EMBEDDING, RANKER)


class ServiceLoad(Load):
    """Clients of both protocols that ask the rankers' Service, and never twice."""

    @contextmanager
    def _client(self, seed: int) -> Iterator[Callable[[dict[str, np.ndarray]], Ranking]]:
        trusted = ssl.create_default_context(cadata=AUTHORITY.pem.decode())
        # The Service's name is one of the cluster's only.
        trusted.check_hostname = False
        rest = http.client.HTTPSConnection(self._address, 80, timeout=20, context=trusted)
        # Each its own connection, and so its own server.
        options = [("grpc.use_local_subchannel_pool", 1), ("grpc.ssl_target_name_override", HOSTS[-1])]
        shown = grpc.ssl_channel_credentials(AUTHORITY.pem)
        with grpc.secure_channel(f"{self._address}:8081", shown, options) as channel:
            stub = pb_grpc.GRPCInferenceServiceStub(channel)

            def rank(tensors: dict[str, np.ndarray]) -> Ranking:
                # Servers that start must have some of the cores.
                self._stopping.wait(0.05)
                return ask_rest(rest, tensors) if seed % 2 else ask_grpc(stub, tensors)

            yield rank


@pytest.fixture(scope="module")
def served(
    serve_image: None, trained: Deployment, namespace: str, overlay: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Published]:
    """Both tiers' servers of a store with two versions."""
    published = publish_both(trained, str(tmp_path_factory.mktemp("served")))
    upload(published)
    add_secrets(namespace, tmp_path_factory.mktemp("secrets"))
    kubectl("apply", "-f", "-", "-l", SERVING, given=overlay)
    # It appears when KServe has seen its object.
    wait_until(lambda: kubectl("-n", namespace, "get", "deployment", "-l", SERVING, "-o", "name"), seconds=60)
    wait_until(lambda: len(ready_pods(namespace, RANKER)) == 2, seconds=240)
    for workload in WORKLOADS:
        wait_until_replaced(namespace, workload)
    yield published
    kubectl("-n", namespace, "delete", "inferenceservice,statefulset", "-l", SERVING)


def add_secrets(namespace: str, folder: Path) -> None:
    """The two that the servers mount."""
    certificate, key = AUTHORITY.issue()
    secrets = {
        "afterclick-serving-tls": {"tls.crt": certificate, "tls.key": key, "ca.crt": AUTHORITY.pem},
        "afterclick-serving-control": {"token": b"0123456789abcdef" * 2},
    }
    for secret, contents in secrets.items():
        for name, content in contents.items():
            (folder / name).write_bytes(content)
        files = [f"--from-file={folder / name}" for name in contents]
        kubectl("-n", namespace, "create", "secret", "generic", secret, *files)


def upload(published: Published) -> None:
    """Bring the registry to the servers' store."""
    local = published.store.root
    for path in storage.list_tree(storage.join_uri(local, "registry")):
        storage.upload(Path(local, "registry", path), storage.join_uri(STORE, "registry", path))


@pytest.fixture
def load(served: Published, namespace: str) -> ServiceLoad:
    service = kubectl("-n", namespace, "get", "service", "afterclick-ranker-predictor", "-o=jsonpath={.spec.clusterIP}")
    return ServiceLoad(served.tensors, served.expected, service, num_clients=4)


def wait_until_replaced(namespace: str, workload: str) -> None:
    kubectl("-n", namespace, "rollout", "status", workload, "--timeout=300s")


def ready_pods(namespace: str, workload: str) -> dict[str, str]:
    """Addresses of a tier's pods that are ready and stay, by name."""
    label = f"{SERVING},app.kubernetes.io/component={'ranker' if workload == RANKER else 'embedding'}"
    pods = json.loads(kubectl("-n", namespace, "get", "pods", "-l", label, "-o", "json"))["items"]
    return {
        pod["metadata"]["name"]: pod["status"]["podIP"]
        for pod in pods
        if "deletionTimestamp" not in pod["metadata"]
        and any(state["type"] == "Ready" and state["status"] == "True" for state in pod["status"].get("conditions", []))
    }


def evict(namespace: str, pod: str) -> str:
    """Ask for a pod to be evicted, as a drain of its node does; returns the refusal, if any."""
    asked = {
        "apiVersion": "policy/v1",
        "kind": "Eviction",
        "metadata": {"name": pod, "namespace": namespace},
    }
    command = ["kubectl", "create", "--raw", f"/api/v1/namespaces/{namespace}/pods/{pod}/eviction", "-f", "-"]
    found = subprocess.run(command, input=json.dumps(asked), capture_output=True, text=True, check=False)
    return found.stderr


def assert_nothing_lost(load: ServiceLoad) -> None:
    load.wait_for(40)
    assert set(load.outcomes) == {"right"}, load.outcomes


def test_tables_are_mapped_from_the_pods_disk(served, namespace):
    for pod in ready_pods(namespace, EMBEDDING):
        maps = kubectl("-n", namespace, "exec", pod, "--", "cat", "/proc/1/maps")
        assert f"/tables/{served.old}/tables.int4" in maps


def test_tiers_that_are_replaced_lose_no_request(load, namespace):
    before = {workload: ready_pods(namespace, workload) for workload in WORKLOADS}
    with load:
        load.wait_for(40)
        kubectl("-n", namespace, "rollout", "restart", EMBEDDING)
        change = {"spec": {"predictor": {"annotations": {"changed": "1"}}}}
        kubectl(
            "-n", namespace, "patch", "inferenceservice", "afterclick-ranker", "--type=merge", "-p", json.dumps(change)
        )
        wait_until_replaced(namespace, EMBEDDING)
        wait_until(lambda: not set(ready_pods(namespace, RANKER)) & set(before[RANKER]), seconds=300)
        assert_nothing_lost(load)
    assert set(ready_pods(namespace, EMBEDDING).values()).isdisjoint(before[EMBEDDING].values())


def test_embedding_server_that_is_killed_loses_no_request(load, namespace):
    with load:
        load.wait_for(40)
        gone = next(iter(ready_pods(namespace, EMBEDDING)))
        kubectl("-n", namespace, "delete", "pod", gone, "--grace-period=0", "--force")
        assert_nothing_lost(load)
        wait_until_replaced(namespace, EMBEDDING)
        wait_until(lambda: len(ready_pods(namespace, EMBEDDING)) == 2, seconds=120)
        assert_nothing_lost(load)


@pytest.mark.parametrize("workload", [RANKER, EMBEDDING])
def test_eviction_waits_for_the_pod_before_and_loses_no_request(load, namespace, workload):
    wait_until(lambda: len(ready_pods(namespace, workload)) == 2, seconds=120)
    first, second = ready_pods(namespace, workload)
    with load:
        load.wait_for(40)
        assert evict(namespace, first) == ""
        assert "disruption budget" in evict(namespace, second)
        wait_until(lambda: not evict(namespace, second), seconds=240)
        wait_until(
            lambda: len({*ready_pods(namespace, workload)} - {first, second}) == 2 or workload == EMBEDDING, seconds=240
        )
        assert_nothing_lost(load)


def roll_out(namespace: str, overlay: str, name: str, target: str, *options: str) -> tuple[bool, str]:
    """Roll out a version from a pod of the servers' image, which finds them by name; whether it succeeds, its log."""
    items = list(yaml.safe_load_all(overlay))
    pod = next(item for item in items if item["kind"] == "StatefulSet")["spec"]["template"]
    pod["metadata"]["labels"] = {"afterclick-caller": "rollout"}
    (container,) = pod["spec"]["containers"]
    for of_servers in ("ports", "startupProbe", "livenessProbe", "readinessProbe"):
        del container[of_servers]
    container["args"] = ["rollout", "--store", STORE, "--deployment", "prod", "--to", target[:12], *options]
    container["args"] += ["--embedding-servers=dns:afterclick-embedding:9000"]
    container["args"] += ["--ranker-servers=dns:afterclick-rankers:8081"]
    container["args"] += ["--ca=/tls/ca.crt", "--certificate=/tls/tls.crt", "--key=/tls/tls.key"]
    container["args"] += ["--token=/control/token", f"--server-name={HOSTS[0]}"]
    pod["spec"]["restartPolicy"] = "Never"
    metadata = {"name": name, "namespace": namespace}
    job = {"apiVersion": "batch/v1", "kind": "Job", "metadata": metadata, "spec": {"backoffLimit": 0, "template": pod}}
    kubectl("apply", "-f", "-", given=yaml.safe_dump(job))
    path = '-o=jsonpath={.status.conditions[?(@.status=="True")].type}'
    ended: list[str] = []

    def has_ended() -> bool:
        ended[:] = kubectl("-n", namespace, "get", f"job/{name}", path).split()
        return "Complete" in ended or "Failed" in ended

    wait_until(has_ended, seconds=300)
    return "Complete" in ended, kubectl("-n", namespace, "logs", f"job/{name}")


def test_rollout_moves_the_servers_of_the_cluster(load, served, namespace, overlay):
    wait_until(lambda: all(len(ready_pods(namespace, workload)) == 2 for workload in WORKLOADS), seconds=240)
    with load:
        load.wait_for(40)
        is_done, said = roll_out(namespace, overlay, "good", served.new, "--hold-seconds=0")
        assert is_done, said
        assert_nothing_lost(load)
    assert set(load.versions) == {served.old, served.new}
    for pod in ready_pods(namespace, EMBEDDING):
        assert kubectl("-n", namespace, "exec", pod, "--", "ls", "/tables").split() == [served.new]


def test_version_with_a_fault_is_withdrawn_while_a_ranker_is_deleted(load, served, namespace, overlay):
    spoiled = publish_spoiled(served.store, served.new, "shifted")
    upload(served)
    served.expected[spoiled] = [values * 0.5 for values in served.expected[served.new]]
    limits = [f"--limit={pair}" for pair in ("min_requests=40", "wait_seconds=60", "max_slowdown=20")]
    gone = next(iter(ready_pods(namespace, RANKER)))
    with load:
        load.wait_for(40)
        kubectl("-n", namespace, "delete", "pod", gone, "--wait=false")
        is_done, said = roll_out(namespace, overlay, "faulty", spoiled, "--shares=0.3,1", *limits)
        assert not is_done and "max_mean_change" in said, said
        assert_nothing_lost(load)
    assert load.versions[spoiled] and load.versions[served.new] > load.versions[spoiled]
    assert read_deployment(Store(STORE), "prod") == Record(current=served.new)
    wait_until(lambda: len(ready_pods(namespace, RANKER)) == 2, seconds=240)
