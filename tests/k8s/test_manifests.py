"""Every overlay renders, fits the APIs that it is written for, and keeps the house's rules."""

from __future__ import annotations

import functools
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import kubernetes_validate
import pytest
import yaml

from pipelines.cluster import ClusterConfig
from pipelines.compile import compile_pipelines, uploaded_name
from pipelines.config import load_config
from pipelines.resources import VERSION
from tests.k8s.cluster import needs_cluster
from tests.k8s.schemas import closed

OVERLAYS = sorted(path.name for path in Path("k8s/overlays").iterdir())
CRDS = Path("../shared/crds")
KUBERNETES_VERSION = "1.34"
# Their pods are written by a controller: no image, command or resources of ours.
_CORE = (
    "v1",
    "apps/v1",
    "autoscaling/v2",
    "batch/v1",
    "networking.k8s.io/v1",
    "policy/v1",
    "rbac.authorization.k8s.io/v1",
)
# Overlays with the serving tiers, and their kinds among those of `CRDS`.
_SERVING = {"prod": {"InferenceService"}, "test": {"InferenceService"}}
_UNKNOWN = ("FlinkDeployment", "LocalQueue", "PrometheusRule", "ServiceMonitor")
# Flink writes its configuration beside its programs.
_WRITABLE_ROOT = {"flink-main-container"}

needs_kubectl = pytest.mark.skipif(shutil.which("kubectl") is None, reason="kubectl is not installed")
pytestmark = needs_kubectl


def rendered(overlay: str) -> str:
    command = ["kubectl", "kustomize", f"k8s/overlays/{overlay}"]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def objects(overlay: str) -> list[dict[str, Any]]:
    return list(yaml.safe_load_all(rendered(overlay)))


def pod_specs(value: Any) -> Iterator[dict[str, Any]]:
    """Every pod's specification below an object, wherever its kind keeps it."""
    if isinstance(value, dict):
        if "containers" in value:
            yield value
        for item in value.values():
            yield from pod_specs(item)
    elif isinstance(value, list):
        for item in value:
            yield from pod_specs(item)


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_core_objects_are_valid(overlay):
    checked = [item for item in objects(overlay) if item["apiVersion"] in _CORE]
    assert len(checked) > 8
    for item in checked:
        kubernetes_validate.validate(item, KUBERNETES_VERSION, strict=True)


@functools.cache
def custom_schemas() -> dict[tuple[str, str], jsonschema.Draft202012Validator]:
    """Of each kind that the overlays may have, by its API and name."""
    found = {}
    for path in CRDS.glob("*.yaml"):
        crd = yaml.load(path.read_text(), yaml.CSafeLoader)
        for version in crd["spec"]["versions"]:
            api = f"{crd['spec']['group']}/{version['name']}"
            schema = closed(version["schema"]["openAPIV3Schema"])
            found[api, crd["spec"]["names"]["kind"]] = jsonschema.Draft202012Validator(schema)
    return found


@pytest.mark.skipif(not CRDS.exists(), reason="the schemas of the custom resources are not beside the repository")
@pytest.mark.parametrize("overlay", OVERLAYS)
def test_custom_objects_fit_their_schemas(overlay):
    schemas = custom_schemas()
    known = [item for item in objects(overlay) if (item["apiVersion"], item["kind"]) in schemas]
    assert {item["kind"] for item in known} == {"TrainingRuntime"} | _SERVING.get(overlay, set())
    for item in known:
        schemas[item["apiVersion"], item["kind"]].validate(item)


@pytest.mark.skipif(not CRDS.exists(), reason="the schemas of the custom resources are not beside the repository")
def test_pipelines_are_objects_of_kubernetes_too(tmp_path):
    cluster = ClusterConfig(namespace="ads-training")
    parameters = {"store_uri": "s3://bucket/store", "config_uri": "s3://bucket/store/configs/a.json"}
    for path in compile_pipelines(tmp_path, parameters, cluster, as_manifests=True):
        pipeline, version = yaml.safe_load_all(path.read_text())
        name = uploaded_name(path.stem)
        assert (pipeline["kind"], pipeline["metadata"]) == ("Pipeline", {"name": name, "namespace": "ads-training"})
        assert version["spec"]["pipelineName"] == name and version["metadata"]["name"].startswith(f"{name}-")
        for item in (pipeline, version):
            custom_schemas()[item["apiVersion"], item["kind"]].validate(item)


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_pods_keep_the_rules(overlay):
    pods = [pod for item in objects(overlay) for pod in pod_specs(item)]
    assert pods
    for pod in pods:
        shared = pod["securityContext"]
        assert shared["runAsNonRoot"] and shared["seccompProfile"] == {"type": "RuntimeDefault"}
        assert pod["enableServiceLinks"] is False
        mounted = {volume["name"] for volume in pod.get("volumes", [])}
        for container in pod["containers"]:
            name, own = container["name"], container["securityContext"]
            assert own["allowPrivilegeEscalation"] is False and own["capabilities"] == {"drop": ["ALL"]}, name
            assert {mount["name"] for mount in container.get("volumeMounts", [])} <= mounted, name
            if name in _WRITABLE_ROOT:
                continue
            assert own["readOnlyRootFilesystem"] is True, name
            image, _, tag = container["image"].rpartition(":")
            assert image and tag == VERSION, container["image"]
            assert {"requests", "limits"} <= set(container["resources"]), name
            assert all({"cpu", "memory"} <= set(container["resources"][kind]) for kind in ("requests", "limits")), name
            assert any(mount["mountPath"] == "/tmp" for mount in container["volumeMounts"]), name


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_no_secret_is_written_down(overlay):
    for item in objects(overlay):
        assert item["kind"] != "Secret"
        for pod in pod_specs(item):
            for variable in [v for container in pod["containers"] for v in container.get("env", [])]:
                assert "SECRET" not in variable["name"] and "PASSWORD" not in variable["name"], variable


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_roles_are_small_and_of_one_namespace(overlay):
    for item in objects(overlay):
        assert item["kind"] not in ("ClusterRole", "ClusterRoleBinding")
        for rule in item.get("rules", []):
            assert "*" not in rule["verbs"] and "*" not in rule["resources"] and "secrets" not in rule["resources"]


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_configuration_of_the_overlay_is_valid(overlay):
    config = load_config(f"k8s/overlays/{overlay}/deployment.yaml")
    (account,) = [item for item in objects(overlay) if item["metadata"]["name"] == config.cluster.service_account][:1]
    assert account["metadata"]["namespace"] == config.cluster.namespace


@needs_cluster
@pytest.mark.kubernetes
@pytest.mark.parametrize("overlay", OVERLAYS)
def test_server_accepts_every_object(overlay):
    """What only a server finds, such as names, and requests above limits; kinds that it does not know are left out."""
    known = [item for item in objects(overlay) if item["kind"] not in _UNKNOWN]
    for item in known:
        # Of a namespace that is not there, only the shape can be asked.
        item["metadata"]["namespace"] = "default"
    found = subprocess.run(
        ["kubectl", "apply", "--dry-run=server", "--validate=strict", "-f", "-"],
        input=yaml.safe_dump_all(item for item in known if item["kind"] != "Namespace"),
        capture_output=True,
        text=True,
        check=False,
    )
    assert found.returncode == 0, found.stderr
