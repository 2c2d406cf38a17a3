"""The object that a step gives to Kubernetes for training over several processes."""

from __future__ import annotations

from pathlib import Path

import jsonschema
import pytest
import yaml

from pipelines.cluster import ClusterConfig
from pipelines.train_jobs import TrainJob, job_name
from tests.k8s.schemas import closed

CRD = Path("../shared/crds/trainer.kubeflow.org_trainjobs.yaml")
CLUSTER = ClusterConfig.model_validate(
    {
        "environment": {"AWS_ENDPOINT_URL": "http://store:9000"},
        "secrets": [{"name": "AWS_ACCESS_KEY_ID", "secret": "store", "key": "id"}],
        "labels": {"kueue.x-k8s.io/queue-name": "ads"},
        "image_pull_secrets": ["registry"],
        "steps": {"train-days": {"nodes": 2, "gpus": 8, "cpu": "64", "node_selector": {"pool": "a100"}}},
    }
)


def train_job() -> TrainJob:
    given = CLUSTER.of_step("train-days")
    return TrainJob("train-fal", "ads", given, CLUSTER, "train:1", ("-m", "components.train"))


def test_body_says_what_the_step_was_given():
    body = train_job().body
    trainer = body["spec"]["trainer"]
    assert (trainer["numNodes"], trainer["numProcPerNode"]) == (2, 8)
    assert trainer["resourcesPerNode"]["limits"] == {"cpu": "64", "memory": "64Gi", "nvidia.com/gpu": 8}
    assert trainer["command"] == ["torchrun", "-m", "components.train"]
    assert {"name": "AWS_ENDPOINT_URL", "value": "http://store:9000"} in trainer["env"]
    secret = {"secretKeyRef": {"name": "store", "key": "id"}}
    assert {"name": "AWS_ACCESS_KEY_ID", "valueFrom": secret} in trainer["env"]
    assert body["metadata"]["labels"] == {"kueue.x-k8s.io/queue-name": "ads"}
    (patch,) = body["spec"]["runtimePatches"]
    (job,) = patch["trainingRuntimeSpec"]["template"]["spec"]["replicatedJobs"]
    pod = job["template"]["spec"]["template"]["spec"]
    assert pod["nodeSelector"] == {"pool": "a100"} and pod["imagePullSecrets"] == [{"name": "registry"}]
    assert pod["tolerations"] == [{"key": "nvidia.com/gpu", "operator": "Exists"}]


@pytest.mark.skipif(not CRD.exists(), reason="the schemas of the custom resources are not beside the repository")
def test_body_fits_the_schema():
    (version,) = yaml.safe_load(CRD.read_text())["spec"]["versions"]
    schema, body = closed(version["schema"]["openAPIV3Schema"]), train_job().body
    jsonschema.validate(body, schema)
    body["spec"]["trainer"]["numNode"] = body["spec"]["trainer"].pop("numNodes")
    with pytest.raises(jsonschema.ValidationError, match="numNode"):
        jsonschema.validate(body, schema)


def test_names_are_such_as_pods_can_have():
    name = job_name("A_very long.arm/with everything that a name may not have in it", "run", "2026-01-01")
    assert len(name) <= 48 and name.startswith("train-a-very-long-arm") and name.replace("-", "").isalnum()
    assert job_name("fal", "run-1", "d") == job_name("fal", "run-1", "d") != job_name("fal", "run-2", "d")
