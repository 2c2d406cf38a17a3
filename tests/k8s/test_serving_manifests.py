"""The serving tiers' manifests fit the servers: arguments, ports, probes, and the time that stopping takes."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from components.serve.config import EmbeddingTierConfig, RankerTierConfig
from tests.k8s.test_manifests import needs_kubectl, objects

pytestmark = needs_kubectl
of_overlays = pytest.mark.parametrize("overlay", ["prod", "test"])
_LABEL = "isvc.afterclick-ranker-predictor"


def of_kind(overlay: str, kind: str) -> dict[str, dict[str, Any]]:
    return {item["metadata"]["name"]: item for item in objects(overlay) if item["kind"] == kind}


def pods(overlay: str) -> dict[str, dict[str, Any]]:
    """Each tier's pod, as metadata's labels and spec."""
    return pods_of(objects(overlay))


def pods_of(items: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    by_kind = {item["kind"]: item["spec"] for item in items if item["kind"] in ("StatefulSet", "InferenceService")}
    embedding, ranker = by_kind["StatefulSet"]["template"], by_kind["InferenceService"]["predictor"]
    return {
        "embedding": {"labels": embedding["metadata"]["labels"], **embedding["spec"]},
        # KServe adds the first label.
        "ranker": {**ranker, "labels": {"app": _LABEL, **ranker["labels"]}},
    }


def settings(tier: str, pod: dict[str, Any]) -> EmbeddingTierConfig | RankerTierConfig:
    """The server's settings, from its container's arguments."""
    (container,) = pod["containers"]
    assert container["args"][0] == tier
    variables = {variable["name"]: variable["value"] for variable in container["env"]}
    texts = [re.sub(r"\$\((\w+)\)", lambda found: variables[found[1]], text) for text in container["args"][1:]]
    pairs = [text.removeprefix("--set=").removeprefix("--").split("=", 1) for text in texts]
    values = {name.replace("-", "_"): value for name, value in pairs}
    values["store_uri"] = values.pop("store")
    parsed = {"embedding": EmbeddingTierConfig, "ranker": RankerTierConfig}[tier].parse(values, "arguments")
    assert isinstance(parsed, EmbeddingTierConfig | RankerTierConfig)
    return parsed


@of_overlays
def test_pods_fit_their_servers(overlay):
    for tier, pod in pods(overlay).items():
        config, (container,) = settings(tier, pod), pod["containers"]
        assert config.store_uri.startswith("s3://")
        assert pod["terminationGracePeriodSeconds"] > config.unready_seconds + config.grace_seconds
        # gRPC adds up to a tenth to a connection's time.
        assert 1.1 * config.connection_seconds < config.unready_seconds - 2
        ports = {port["containerPort"]: port["name"] for port in container["ports"]}
        assert set(ports) == {config.grpc_port, config.http_port}
        paths = {"embedding": ("/live", "/ready"), "ranker": ("/v2/health/live", "/v2/health/ready")}[tier]
        asked = [container[f"{probe}Probe"]["httpGet"] for probe in ("startup", "liveness", "readiness")]
        assert [get["path"] for get in asked] == [paths[0], paths[0], paths[1]]
        assert all(get["port"] in (config.http_port, ports[config.http_port]) for get in asked)


@of_overlays
def test_rankers_ask_the_headless_service_of_the_tables(overlay):
    tiers = pods(overlay)
    embedding, ranker = settings("embedding", tiers["embedding"]), settings("ranker", tiers["ranker"])
    name, _, port = ranker.embedding_address.partition(":")
    service = of_kind(overlay, "Service")[name]["spec"]
    assert service["clusterIP"] == "None" and int(port) == embedding.grpc_port
    assert service["selector"].items() <= tiers["embedding"]["labels"].items()
    assert (ranker.store_uri, ranker.deployment) == (embedding.store_uri, embedding.deployment)
    mounts = {mount["mountPath"] for mount in tiers["embedding"]["containers"][0]["volumeMounts"]}
    assert embedding.copies_folder in mounts


@of_overlays
def test_what_selects_pods_selects_those_of_one_tier(overlay):
    labels = {tier: pod["labels"] for tier, pod in pods(overlay).items()}
    budgets, policies = of_kind(overlay, "PodDisruptionBudget"), of_kind(overlay, "NetworkPolicy")
    for tier, others in (("embedding", "ranker"), ("ranker", "embedding")):
        chosen = [
            *(rule["labelSelector"]["matchLabels"] for rule in pods(overlay)[tier]["topologySpreadConstraints"]),
            budgets[f"afterclick-{tier}"]["spec"]["selector"]["matchLabels"],
            policies[f"afterclick-{tier}"]["spec"]["podSelector"]["matchLabels"],
        ]
        for wanted in chosen:
            assert wanted.items() <= labels[tier].items() and not wanted.items() <= labels[others].items()
    denied = policies["afterclick-serving-default-deny"]["spec"]
    assert all(denied["podSelector"]["matchLabels"].items() <= of.items() for of in labels.values())
    (rule,) = policies["afterclick-embedding"]["spec"]["ingress"]
    callers = [caller["podSelector"]["matchLabels"] for caller in rule["from"]]
    assert any(caller.items() <= labels["ranker"].items() for caller in callers)


@of_overlays
def test_autoscaler_scales_what_kserve_makes_of_the_rankers(overlay):
    target = of_kind(overlay, "HorizontalPodAutoscaler")["afterclick-ranker"]["spec"]["scaleTargetRef"]
    service = of_kind(overlay, "InferenceService")["afterclick-ranker"]
    assert target["name"] == f"{service['metadata']['name']}-predictor"
    assert service["metadata"]["annotations"]["serving.kserve.io/autoscalerClass"] == "external"


def test_component_for_tls_gives_servers_what_it_mounts_and_probes_a_plain_port(tmp_path):
    resources = [os.path.relpath("k8s/overlays/prod", tmp_path)]
    components = [os.path.relpath("k8s/components/serving-tls", tmp_path)]
    (tmp_path / "kustomization.yaml").write_text(yaml.safe_dump({"resources": resources, "components": components}))
    command = ["kubectl", "kustomize", "--load-restrictor=LoadRestrictionsNone", str(tmp_path)]
    rendered = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    items = list(yaml.safe_load_all(rendered))
    for tier, pod in pods_of(items).items():
        config, (container,) = settings(tier, pod), pod["containers"]
        mounts = {mount["mountPath"]: mount["name"] for mount in container["volumeMounts"]}
        volumes = {volume["name"]: volume for volume in pod["volumes"]}
        files = [config.tls_certificate, config.tls_key, config.control_token]
        files += [config.embedding_ca if isinstance(config, RankerTierConfig) else config.tls_client_ca]
        for path in map(Path, files):
            assert "secret" in volumes[mounts[str(path.parent)]]
        health = config.health_port if isinstance(config, RankerTierConfig) else config.http_port
        ports = {port["name"]: port["containerPort"] for port in container["ports"]}
        assert health in ports.values()
        for probe in ("startupProbe", "livenessProbe", "readinessProbe"):
            asked = container[probe]["httpGet"]
            assert asked["path"] in ("/live", "/ready") and ports.get(asked["port"], asked["port"]) == health
    (monitor,) = (
        item for item in items if item["kind"] == "ServiceMonitor" and item["metadata"]["name"][-6:] == "ranker"
    )
    assert monitor["spec"]["endpoints"][0]["targetPort"] == 8082
