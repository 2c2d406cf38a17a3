"""The pipelines' YAML: what was reviewed, what the cluster's section changes in it, and how large it may be."""

from pathlib import Path

import pytest
import yaml

from components.common.errors import InputError
from pipelines.cluster import ClusterConfig
from pipelines.compile import PIPELINES, compile_pipelines
from pipelines.resources import STEPS
from tests.golden.rewrite import GOLDEN, without_versions

# An Argo workflow that holds one, with all that the back end adds, stays well below what Kubernetes stores.
MAX_BYTES = 250_000
CLUSTER = ClusterConfig.model_validate(
    {
        "image_prefix": "registry.example.com/team/",
        "environment": {"AWS_ENDPOINT_URL": "http://s3.example.com:9000"},
        "secrets": [{"name": "AWS_ACCESS_KEY_ID", "secret": "store", "key": "id"}],
        "labels": {"kueue.x-k8s.io/queue-name": "ads"},
        "image_pull_secrets": ["registry"],
        "run_deadline_hours": 5,
        "steps": {
            "train-days": {
                "gpus": 1,
                "memory": "9Gi",
                "timeout_minutes": 7,
                "node_selector": {"pool": "a100"},
                "tolerations": [{"key": "spot", "operator": "Equal", "value": "yes", "effect": "NoSchedule"}],
            },
            "evaluate": {"gpus": 0, "cpu": "500m"},
        },
    }
)


@pytest.fixture(scope="module")
def compiled(tmp_path_factory):
    return {path.stem: path for path in compile_pipelines(tmp_path_factory.mktemp("compiled"))}


@pytest.mark.parametrize("name", sorted(PIPELINES))
def test_yaml_is_the_reviewed_one(compiled, name):
    """After a wanted change: `make golden`, and review the difference."""
    assert without_versions(compiled[name].read_text()) == (GOLDEN / f"{name}.yaml").read_text()


@pytest.mark.parametrize("name", sorted(PIPELINES))
def test_every_step_has_its_row_of_the_table(compiled, name):
    containers, pods = executors_of(compiled[name]), pods_of(compiled[name])
    assert set(containers) <= set(STEPS) and len(containers) == (2 if name == "pretraining" else 4)
    for step, container in containers.items():
        row, resources = STEPS[step], container["resources"]
        assert container["image"] == row.image
        assert resources["resourceCpuLimit"] == resources["resourceCpuRequest"] == row.cpu
        assert resources["resourceMemoryLimit"] == resources["resourceMemoryRequest"] == row.memory
        accelerator = resources.get("accelerator")
        found = (accelerator["resourceType"], accelerator["resourceCount"]) if accelerator else None
        assert found == (("nvidia.com/gpu", str(row.gpus)) if row.gpus else None)
        pod = pods[step]
        assert pod["activeDeadlineSeconds"] == str(row.timeout_minutes * 60)
        assert pod["securityContext"] == {"runAsNonRoot": True}
        mounts = {mount["mountPath"]: mount for mount in pod["emptyDirMounts"]}
        assert "/tmp" in mounts and mounts.get("/dev/shm", {}).get("sizeLimit") == row.shared_memory


def test_cluster_section_overrides_the_table(tmp_path):
    path = compile_pipelines(tmp_path, cluster=CLUSTER)[1]
    containers, pods = executors_of(path), pods_of(path)
    assert {container["image"] for container in containers.values()} == {
        f"registry.example.com/team/{row.image}" for row in STEPS.values()
    }
    for step, container in containers.items():
        assert container["env"] == [{"name": "AWS_ENDPOINT_URL", "value": "http://s3.example.com:9000"}]
        assert pods[step]["secretAsEnv"][0]["keyToEnv"] == [{"envVar": "AWS_ACCESS_KEY_ID", "secretKey": "id"}]
        labels = pods[step]["podMetadata"]["labels"]
        assert labels["kueue.x-k8s.io/queue-name"] == "ads" and labels["app.kubernetes.io/part-of"] == "afterclick"
        assert pods[step]["imagePullSecret"][0]["secretName"] == "registry"
    training = containers["train-days"]["resources"]
    assert (training["accelerator"]["resourceCount"], training["resourceMemoryLimit"]) == ("1", "9Gi")
    assert pods["train-days"]["nodeSelector"] == {"labels": {"pool": "a100"}}
    assert pods["train-days"]["tolerations"] == [
        {"effect": "NoSchedule", "key": "spot", "operator": "Equal", "value": "yes"}
    ]
    assert pods["train-days"]["activeDeadlineSeconds"] == "420"
    assert containers["evaluate"]["resources"]["resourceCpuLimit"] == "500m"
    assert "accelerator" not in containers["evaluate"]["resources"]
    assert platform_of(path)["pipelineConfig"]["activeDeadlineSeconds"] == 5 * 3600


def test_step_that_watches_a_training_job_asks_for_little(tmp_path):
    cluster = ClusterConfig.model_validate({"steps": {"train-days": {"gpus": 8, "nodes": 2, "timeout_minutes": 100}}})
    path = compile_pipelines(tmp_path, cluster=cluster)[1]
    watcher, pod = executors_of(path)["train-days"], pods_of(path)["train-days"]
    assert watcher["resources"]["resourceCpuLimit"] == "500m" and "accelerator" not in watcher["resources"]
    assert pod["activeDeadlineSeconds"] == str((100 + 60) * 60) and "tolerations" not in pod


def test_cluster_without_gpus_is_asked_for_none(tmp_path):
    for path in compile_pipelines(tmp_path, cluster=ClusterConfig(accelerator="cpu")):
        assert all("accelerator" not in container["resources"] for container in executors_of(path).values())
        assert all("tolerations" not in pod for pod in pods_of(path).values())


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"steps": {"train": {}}}, "cluster.steps: train is no step; there are prepare-examples, train-batch"),
        (
            {"steps": {"evaluate": {"nodes": 2}}},
            "evaluate.nodes: only train-batch, train-days, pretrain-tables",
        ),
        ({"steps": {"evaluate": {"memory": "lots"}}}, "steps.evaluate.memory = 'lots'"),
        ({"environment": {"AWS_SECRET_ACCESS_KEY": "x"}}, "cluster.environment.AWS_SECRET_ACCESS_KEY: looks like a"),
    ],
)
def test_what_is_wrong_in_the_section_is_named(values, said):
    with pytest.raises(InputError, match=said):
        ClusterConfig.parse(values, "own.yaml: cluster")


@pytest.mark.parametrize("name", sorted(PIPELINES))
def test_every_task_retries_and_none_is_cached(compiled, name):
    for task in tasks_of(spec_of(compiled[name])):
        step = task["componentRef"]["name"].removeprefix("comp-").rstrip("-0123456789")
        if step in STEPS:
            assert task["retryPolicy"]["maxRetryCount"] == STEPS[step].retries
            assert not task.get("cachingOptions", {}).get("enableCache")


def test_cluster_safe_subset(compiled):
    """No importer, no artifact as a pipeline input, no loop: what the local runner and a cluster both do alike."""
    for path in compiled.values():
        spec = spec_of(path)
        assert "artifacts" not in spec["root"]["inputDefinitions"]
        assert all("importer" not in executor for executor in spec["deploymentSpec"]["executors"].values())
        assert all("parameterIterator" not in task for task in tasks_of(spec))


def test_addresses_can_be_compiled_in(tmp_path):
    parameters = {"store_uri": "s3://bucket/afterclick", "config_uri": "s3://bucket/afterclick/configs/abc.json"}
    spec = spec_of(compile_pipelines(tmp_path, parameters)[0])
    inputs = spec["root"]["inputDefinitions"]["parameters"]
    assert {name: inputs[name]["defaultValue"] for name in parameters} == parameters


def test_ten_arms_stay_within_the_size_that_a_cluster_stores(tmp_path):
    """Tables are in the configuration, which goes by reference: a hundred of them add nothing."""
    arms = [f"arm_with_a_long_name_{number}" for number in range(10)]
    for path in compile_pipelines(tmp_path, cluster=CLUSTER, arms=arms):
        assert len(executors_of(path, by_arm=True)) == (2 if path.stem == "pretraining" else 3 + 10)
        assert path.stat().st_size < MAX_BYTES


@pytest.mark.parametrize("name", sorted(PIPELINES))
def test_pipelines_take_addresses_not_configurations(compiled, name):
    """Kubeflow limits a parameter to 10,000 bytes, and passes integers as floats and mappings without their order."""
    spec = spec_of(compiled[name])
    inputs = spec["root"]["inputDefinitions"]["parameters"]
    assert set(inputs) == {"store_uri", "config_uri", "as_of"}
    assert {value["parameterType"] for value in inputs.values()} == {"STRING"}
    for component in spec["components"].values():
        for value in component.get("inputDefinitions", {}).get("parameters", {}).values():
            assert value["parameterType"] != "STRUCT"


@pytest.mark.parametrize("name", sorted(PIPELINES))
def test_only_the_condition_is_nested(compiled, name):
    """A nested pipeline costs a pod and ten seconds on a cluster, a step half a minute beside its work."""
    nested = [component for component, value in spec_of(compiled[name])["components"].items() if "dag" in value]
    assert nested == ([] if name == "pretraining" else ["comp-condition-1"])


def spec_of(path: Path) -> dict:
    return next(iter(yaml.safe_load_all(path.read_text())))


def platform_of(path: Path) -> dict:
    return list(yaml.safe_load_all(path.read_text()))[1]["platforms"]["kubernetes"]


def pods_of(path: Path) -> dict[str, dict]:
    """What Kubernetes is told of the steps' pods."""
    executors = platform_of(path)["deploymentSpec"]["executors"].items()
    return {step_of(name): pod for name, pod in executors}


def executors_of(path: Path, by_arm: bool = False) -> dict[str, dict]:
    """The steps' containers; with `by_arm` each arm's."""
    executors = spec_of(path)["deploymentSpec"]["executors"].items()
    return {name if by_arm else step_of(name): executor["container"] for name, executor in executors}


def step_of(executor: str) -> str:
    return executor.removeprefix("exec-").rstrip("-0123456789")


def tasks_of(spec: dict) -> list[dict]:
    dags = [spec["root"]["dag"], *(c["dag"] for c in spec["components"].values() if "dag" in c)]
    return [task for dag in dags for task in dag["tasks"].values()]
