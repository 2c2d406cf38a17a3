"""A run's configuration reaches its steps as it was written, whatever its size, its numbers and its order."""

import json

import pytest
import yaml

from components.common import storage
from components.common.config import ResolvedConfig
from components.common.errors import InputError
from components.common.layout import Store
from components.features.events import DatasetConfig
from components.features.feature_list import FeatureConfig
from components.gate.config import GateConfig
from components.join.config import JoinConfig
from components.train.config import TrainConfig
from pipelines.compile import compile_pipelines
from pipelines.config import RunConfig, load_config
from tests.conftest import small_values, write_config

BEYOND_FLOATS = 2**53 + 1


@pytest.fixture(scope="module")
def large(tmp_path_factory) -> RunConfig:
    """100 tables, seeds that floats cannot hold, and mappings that are not in the order of their keys."""
    values = small_values()
    names = [f"entity_{number:03d}" for number in range(96)]
    values["dataset"]["context_identifiers"] += names
    values["dataset"]["attribution"] = dict(reversed(values["dataset"]["attribution"].items()))
    values["features"]["categorical"] += [{"name": name, "num_rows": 1000} for name in names[:93]]
    values["join"]["salt"] = 20170301
    values["train"]["objective_weights"] = {"good_click": 0.5, "click": 2.0, "checkout_given_view": 1.0}
    values["arms"]["sparse_optimizer"]["seed"] = BEYOND_FLOATS
    return load_config(str(write_config(tmp_path_factory.mktemp("large") / "large.yaml", values)))


def run_step(config_uri: str, output: str) -> None:
    """Read a configuration in a step of the local runner, and write what arrived."""
    from kfp import dsl, local

    @dsl.component(base_image="python:3.11", install_kfp_package=False)
    def read_configuration(config_uri: str, output: str):
        import json

        from components.common.config import ResolvedConfig

        with open(output, "w") as stream:
            json.dump(ResolvedConfig.open(config_uri).values, stream)

    @dsl.pipeline(name="read")
    def read(config_uri: str, output: str):
        read_configuration(config_uri=config_uri, output=output)

    local.init(runner=local.SubprocessRunner(use_venv=False), pipeline_root=f"{output}-kfp")
    read(config_uri=config_uri, output=output)


def test_configuration_arrives_in_a_step_as_it_was_written(large, tmp_path):
    assert len(large.features.tables) == 102
    config_uri = large.write(Store(str(tmp_path)))
    run_step(config_uri, str(tmp_path / "arrived.json"))
    text = (tmp_path / "arrived.json").read_text()
    assert text == json.dumps(large.model_dump(mode="json")), "values and order, in every section"
    values = json.loads(text)
    assert list(values["dataset"]["attribution"]) == ["checkout", "add_to_cart"]
    assert list(values["arms"]["baseline"]["objective_weights"]) == ["good_click", "click", "checkout_given_view"]
    assert values["join"]["salt"] == 20170301 and values["arms"]["sparse_optimizer"]["seed"] == BEYOND_FLOATS


def test_sections_are_those_of_the_deployment(large, tmp_path):
    config = ResolvedConfig.open(large.write(Store(str(tmp_path))))
    assert config.section(DatasetConfig, "dataset") == large.dataset
    assert config.section(FeatureConfig, "features") == large.features
    assert config.section(JoinConfig, "join") == large.join
    assert config.section(TrainConfig, "arms", "sparse_optimizer") == large.arms["sparse_optimizer"]
    assert RunConfig.parse(config.values, "resolved") == large


def test_compiled_pipelines_do_not_grow_with_the_configuration(large, tmp_path):
    parameters = {"store_uri": str(tmp_path), "config_uri": large.write(Store(str(tmp_path)))}
    small, full = (compile_pipelines(tmp_path / name, given) for name, given in (("a", {}), ("b", parameters)))
    for before, after in zip(small, full, strict=True):
        assert after.stat().st_size - before.stat().st_size < 1000 and after.stat().st_size < 100_000
        inputs = next(iter(yaml.safe_load_all(after.read_text())))["root"]["inputDefinitions"]["parameters"]
        assert RunConfig.parse(ResolvedConfig.open(inputs["config_uri"]["defaultValue"]).values, "yaml") == large


def test_a_configuration_has_one_file_and_keeps_it(large, tmp_path):
    store = Store(str(tmp_path))
    first = large.write(store)
    assert large.write(store) == first and len(storage.list_names(store.configs())) == 1
    changed = large.model_copy(update={"gate": GateConfig(num_days=9)})
    assert changed.write(store) != first and len(storage.list_names(store.configs())) == 2


def test_changed_and_absent_files_are_named(large, tmp_path):
    uri = large.write(Store(str(tmp_path)))
    storage.write_bytes(uri, storage.read_bytes(uri).replace(b"20170301", b"20170302"))
    with pytest.raises(InputError, match="its bytes are not those that it is named by"):
        ResolvedConfig.open(uri)
    with pytest.raises(InputError, match="no such configuration"):
        ResolvedConfig.open(uri.replace("json", "jsn"))
    with pytest.raises(InputError, match=r"has no section arms\.third"):
        ResolvedConfig.open(changed_uri(large, tmp_path)).section(TrainConfig, "arms", "third")


def changed_uri(config: RunConfig, tmp_path) -> str:
    return config.model_copy(update={"join": JoinConfig(salt=1)}).write(Store(str(tmp_path)))
