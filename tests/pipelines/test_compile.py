from pathlib import Path

import pytest
import yaml

from pipelines.compile import PIPELINES, compile_pipelines
from pipelines.resources import GPU_TYPE, STEPS
from tests.golden.rewrite import GOLDEN, without_versions


@pytest.fixture(scope="module")
def compiled(tmp_path_factory):
    return {path.stem: path for path in compile_pipelines(tmp_path_factory.mktemp("compiled"))}


@pytest.mark.parametrize("name", sorted(PIPELINES))
def test_yaml_is_the_reviewed_one(compiled, name):
    """After a wanted change: `make golden`, and review the difference."""
    assert without_versions(compiled[name].read_text()) == (GOLDEN / f"{name}.yaml").read_text()


@pytest.mark.parametrize("name", sorted(PIPELINES))
def test_every_step_has_its_row_of_the_table(compiled, name):
    executors = executors_of(compiled[name])
    assert set(executors) <= set(STEPS)
    assert {"pick-days", "join-examples", "gate", "export", "publish", "report"} <= set(executors)
    for step, container in executors.items():
        row = STEPS[step]
        assert container["image"] == row.image
        assert container["resources"]["resourceCpuLimit"] == row.cpu
        assert container["resources"]["resourceMemoryLimit"] == row.memory
        accelerator = container["resources"].get("accelerator")
        found = (accelerator["resourceType"], accelerator["resourceCount"]) if accelerator else None
        assert found == ((GPU_TYPE, str(row.gpus)) if row.gpus else None)


@pytest.mark.parametrize("name", sorted(PIPELINES))
def test_every_task_retries_and_none_is_cached(compiled, name):
    for task in tasks_of(yaml.safe_load(compiled[name].read_text())):
        step = task["componentRef"]["name"].removeprefix("comp-").rstrip("-0123456789")
        if step in STEPS:
            assert task["retryPolicy"]["maxRetryCount"] == STEPS[step].retries
            assert not task.get("cachingOptions", {}).get("enableCache")


def test_cluster_safe_subset(compiled):
    """No importer, no artifact as a pipeline input, no loop: what the local runner and a cluster both do alike."""
    for path in compiled.values():
        spec = yaml.safe_load(path.read_text())
        assert "artifacts" not in spec["root"]["inputDefinitions"]
        assert all("importer" not in executor for executor in spec["deploymentSpec"]["executors"].values())
        assert all("parameterIterator" not in task for task in tasks_of(spec))


def test_store_configuration_and_registry_can_be_compiled_in(tmp_path):
    parameters = {"store_uri": "s3://bucket/afterclick", "config_uri": "s3://bucket/afterclick/configs/abc.json"}
    paths = compile_pipelines(tmp_path, parameters, image_prefix="registry.example.com/team/")
    spec = yaml.safe_load(paths[0].read_text())
    inputs = spec["root"]["inputDefinitions"]["parameters"]
    assert {name: inputs[name]["defaultValue"] for name in parameters} == parameters
    images = {container["image"] for container in executors_of(paths[0]).values()}
    assert images == {f"registry.example.com/team/{row.image}" for row in STEPS.values() if row.image}


@pytest.mark.parametrize("name", sorted(PIPELINES))
def test_pipelines_take_addresses_not_configurations(compiled, name):
    """Kubeflow limits a parameter to 10,000 bytes, and passes integers as floats and mappings without their order."""
    spec = yaml.safe_load(compiled[name].read_text())
    inputs = spec["root"]["inputDefinitions"]["parameters"]
    assert set(inputs) == {"store_uri", "config_uri", "as_of"}
    assert {value["parameterType"] for value in inputs.values()} == {"STRING"}
    for component in spec["components"].values():
        for value in component.get("inputDefinitions", {}).get("parameters", {}).values():
            assert value["parameterType"] != "STRUCT"


@pytest.mark.parametrize("name", sorted(PIPELINES))
def test_only_conditions_are_nested(compiled, name):
    """A nested pipeline costs seconds on a cluster."""
    spec = yaml.safe_load(compiled[name].read_text())
    nested = [component for component, value in spec["components"].items() if "dag" in value]
    assert all(component.startswith(("comp-condition", "comp-condition-branches")) for component in nested)


def executors_of(path: Path) -> dict[str, dict]:
    spec = yaml.safe_load(path.read_text())
    executors = spec["deploymentSpec"]["executors"].items()
    return {name.removeprefix("exec-").rstrip("-0123456789"): executor["container"] for name, executor in executors}


def tasks_of(spec: dict) -> list[dict]:
    dags = [spec["root"]["dag"], *(c["dag"] for c in spec["components"].values() if "dag" in c)]
    return [task for dag in dags for task in dag["tasks"].values()]
