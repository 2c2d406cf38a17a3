from pathlib import Path

import pytest

from components.common.config import read_yaml
from components.common.errors import InputError
from components.gate.config import GateConfig
from components.join.config import JoinConfig
from pipelines.config import load_config
from tests.conftest import small_values, write_config


def test_unknown_key_is_named():
    with pytest.raises(InputError, match="demo.yaml: join: negativ_keep_rate: unknown key"):
        JoinConfig.parse({"negativ_keep_rate": 0.5}, "demo.yaml: join")


def test_every_bad_field_is_named_with_its_value():
    with pytest.raises(InputError, match=r"negative_keep_rate = 1.5.*rows_per_shard = 0"):
        JoinConfig.parse({"negative_keep_rate": 1.5, "rows_per_shard": 0}, "join")


def test_integers_may_arrive_as_floats():
    assert JoinConfig.parse({"rows_per_shard": 4.0}, "join").rows_per_shard == 4


def test_cross_field_check_names_the_fields():
    with pytest.raises(InputError, match="min_calibration = 2.0 is not below max_calibration"):
        GateConfig.parse({"min_calibration": 2.0}, "gate")


@pytest.mark.parametrize(
    "option", ["--direct_running_mode=multi_threading", "--runner=DaskRunner", "--runner=bundlebaseddirectrunner"]
)
def test_runners_that_lose_rows_are_refused(option):
    with pytest.raises(InputError, match="beam_options"):
        JoinConfig.parse({"beam_options": ["--runner=FnApiRunner", option]}, "join")


@pytest.mark.parametrize("content", ["- a list", "key: [unclosed"])
def test_not_a_mapping_is_refused(tmp_path, content):
    path = tmp_path / "broken.yaml"
    path.write_text(content)
    with pytest.raises(InputError, match=r"broken\.yaml"):
        read_yaml(str(path))


def test_digest_ignores_order():
    assert (
        JoinConfig.parse({"salt": 1, "rows_per_shard": 2}, "").digest()
        == JoinConfig.parse({"rows_per_shard": 2, "salt": 1}, "").digest()
    )


@pytest.mark.parametrize(
    ("section", "change", "message"),
    [
        ("features", {"numbers": ["colour"]}, "features.numbers: 'colour' is not among"),
        ("dataset", {"action_entities": ["surface", "nowhere"]}, "nowhere"),
        ("schedule", {"first_day": "2025-01-01"}, "before dataset.first_day"),
        ("arms", {"control": {"optimizer": {"table_multiplier": 50}}}, "same recipe"),
    ],
)
def test_sections_are_checked_against_each_other(tmp_path, section, change, message):
    values = small_values()
    values[section] |= change
    with pytest.raises(InputError, match=message):
        load_config(str(write_config(tmp_path / "c.yaml", values)))


def test_unknown_configuration_lists_the_shipped_ones():
    with pytest.raises(InputError, match=r"complete_journey.*simulator"):
        load_config("completejourney")


def test_configuration_in_the_documentation_is_complete(tmp_path):
    text = Path("docs/own_logs.md").read_text()
    path = tmp_path / "my_shop.yaml"
    path.write_text(text.split("```yaml\n")[1].split("```")[0])
    config = load_config(str(path))
    assert config.arms.candidate.optimizer.table_multiplier == 50
    assert config.source.actions.columns["impression_id"] == "imp"


def test_values_that_are_sections_are_not_printed():
    with pytest.raises(InputError) as raised:
        GateConfig.parse({"min_calibration": 2.0}, "gate")
    assert "{" not in str(raised.value)
