import re
from pathlib import Path

import pytest

from components.common.config import read_yaml
from components.common.errors import InputError
from components.gate.config import GateConfig
from components.join.config import JoinConfig
from data_validation.config import ValidationConfig
from pipelines.config import load_config
from pipelines.training import SHIPPED_ARMS
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


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--runner=FnApiRunner", "--direct_num_worker=2"], "no option --direct_num_worker, but --direct_num_workers"),
        (["--runner=FnApiRunner", "--direct_num_workers=two"], "direct_num_workers: invalid int value: 'two'"),
        (["--runner=FlinkRunner", "--paralelism=4"], "no option --paralelism, but --parallelism"),
    ],
)
def test_misspelt_beam_options_are_refused(options, message):
    with pytest.raises(InputError, match=message):
        JoinConfig.parse({"beam_options": options}, "join")


def test_options_that_only_a_job_server_knows_are_taken():
    options = ("--runner=FlinkRunner", "--parallelism=4", "--checkpointingInterval=60000")
    assert JoinConfig.parse({"beam_options": options}, "join").beam_options == options


def test_how_beam_runs_decides_no_verdict():
    options = ["--runner=FnApiRunner", "--direct_num_workers=2"]
    assert ValidationConfig.parse({"beam_options": options}, "").deciding == ValidationConfig().deciding
    assert ValidationConfig(max_drift=0.4).deciding != ValidationConfig().deciding


@pytest.mark.parametrize(
    ("section", "change", "message"),
    [
        ("join", {"salt": -1}, r"line \d+: join.salt = -1: Input should be greater than or equal to 0"),
        ("join", {"salt": 2**63}, r"line \d+: join.salt = "),
        ("join", {"keep": 0.5}, r"line \d+: join.keep: unknown key"),
        ("source", {"seed": -1}, r"line \d+: source.simulator.seed = -1"),
        ("features", {"numbers": ["price", "price"]}, "features.numbers: 'price' is given twice"),
        ("features", {"counts": {"windows_days": [7, 7]}}, "features.counts.windows_days: 7 is given twice"),
        ("features", {"counts": {"windows_days": [7, 366]}}, r"features.counts.windows_days.1 = 366"),
        ("train", {"seed": -1}, r"line \d+: arms.baseline.seed = -1.*line \d+: arms.sparse_optimizer.seed = -1"),
    ],
)
def test_what_is_out_of_bounds_is_named_with_its_line(tmp_path, section, change, message):
    values = small_values()
    values[section] = {**values.get(section, {}), **change}
    path = write_config(tmp_path / "config.yaml", values)
    with pytest.raises(InputError, match=message) as raised:
        load_config(str(path))
    lines, places = path.read_text().splitlines(), re.findall(r"line (\d+): ([\w.]+)", str(raised.value))
    assert places
    for number, field in places:
        *_, name = [part for part in field.split(".") if not part.isdigit()]
        assert f"{name}:" in lines[int(number) - 1] or "- " in lines[int(number) - 1] or name == "keep"


def test_feature_that_is_given_twice_is_refused(tmp_path):
    values = small_values()
    values["features"]["categorical"].append(values["features"]["categorical"][0])
    with pytest.raises(InputError, match=r"line \d+: features: categorical: '\w+' is given twice"):
        load_config(str(write_config(tmp_path / "config.yaml", values)))


@pytest.mark.parametrize(
    ("section", "change", "message"),
    [
        (
            "features",
            {"engagement": {"entities": ["surface"], "window_days": 7}},
            r"line \d+: features.engagement.entities: 'surface' is not among .*add it to dataset.action_entities",
        ),
        ("dataset", {"timezone": "Mars/Olympus"}, r"line \d+: dataset.timezone = 'Mars/Olympus': .* no time zone"),
        (
            "features",
            {"timezone": "Europe/Paris"},
            "features.timezone: remove it; .* by dataset.timezone",
        ),
        ("gate", {"served": ["click"]}, "gate.served: remove it; it is said once, by the key served"),
    ],
)
def test_what_sections_share_is_said_once_and_where(tmp_path, section, change, message):
    values = small_values()
    values[section] = {**values[section], **change}
    with pytest.raises(InputError, match=message) as raised:
        load_config(str(write_config(tmp_path / "config.yaml", values)))
    assert "(whole section)" not in str(raised.value)


def test_served_objectives_reach_every_judge(tmp_path):
    values = small_values() | {"served": ["click", "checkout_given_view"]}
    config = load_config(str(write_config(tmp_path / "config.yaml", values)))
    assert config.evaluation.served == config.gate.served == config.export.served == ("click", "checkout_given_view")
    for wrong in (["clicks"], [], ["click", "click"]):
        with pytest.raises(InputError, match="served"):
            load_config(str(write_config(tmp_path / "config.yaml", values | {"served": wrong})))


@pytest.mark.parametrize("content", ["- a list", "key: [unclosed"])
def test_not_a_mapping_is_refused(tmp_path, content):
    path = tmp_path / "broken.yaml"
    path.write_text(content)
    with pytest.raises(InputError, match=r"broken\.yaml"):
        read_yaml(str(path))


NONE = {"entities": []}


def test_digest_ignores_order():
    assert (
        JoinConfig.parse({"salt": 1, "rows_per_shard": 2}, "").digest()
        == JoinConfig.parse({"rows_per_shard": 2, "salt": 1}, "").digest()
    )


@pytest.mark.parametrize(
    ("section", "change", "message"),
    [
        ("features", {"numbers": ["colour"]}, "features.numbers: 'colour' is not among"),
        (
            "features",
            {"categorical": [{"name": "tone", "quantiles": {"number": "colour"}}], "sequence": {"entities": []}},
            "features.categorical: tone.quantiles.number: 'colour' is not among",
        ),
        (
            "features",
            {"categorical": [{"name": "clicked", "crossed": ["item_id", "surface"], "num_rows": 8}], "sequence": NONE},
            "features: 'clicked' is a column that examples have anyway",
        ),
        ("dataset", {"action_entities": ["surface", "nowhere"]}, "nowhere"),
        ("schedule", {"first_day": "2025-01-01"}, "before dataset.first_day"),
        ("arms", {"baseline": {"optimizer": {"table_multiplier": 50}}}, "same recipe with the same seed"),
        ("arms", {"served": {"seed": 1}}, "'served' cannot be an arm's name"),
        ("arms", {"Fal-2": {"seed": 1}}, "'Fal-2' cannot be an arm's name"),
        ("evaluation", {"slices": [{"column": "colour", "values": [1]}]}, "'colour' is not a categorical feature"),
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
    assert config.arms["sparse_optimizer"].optimizer.table_multiplier == 50
    assert config.source.actions.columns["impression_id"].column == "imp"


def test_values_that_are_sections_are_not_printed():
    with pytest.raises(InputError) as raised:
        GateConfig.parse({"min_calibration": 2.0}, "gate")
    assert "{" not in str(raised.value)


def test_configuration_may_say_only_what_differs_from_another(tmp_path):
    write_config(tmp_path / "base.yaml", small_values())
    own = {"extends": "base.yaml", "gate": {"num_days": 9}, "cluster": {"accelerator": "cpu"}}
    loaded, base = (
        load_config(str(path)) for path in (write_config(tmp_path / "own.yaml", own), tmp_path / "base.yaml")
    )
    assert loaded.gate == base.gate.model_copy(update={"num_days": 9})
    assert loaded.arms == base.arms and loaded.cluster.of_step("train-days").gpus == 0
    shipped = load_config(str(write_config(tmp_path / "shipped.yaml", {"extends": "simulator"})))
    assert shipped == load_config("simulator")


def test_what_a_configuration_extends_is_looked_at(tmp_path):
    write_config(tmp_path / "own.yaml", {"extends": "simulator"})
    with pytest.raises(InputError, match="extends: own.yaml extends another configuration itself; name that one"):
        load_config(str(write_config(tmp_path / "third.yaml", {"extends": "own.yaml"})))
    with pytest.raises(InputError, match="absent.yaml: no such configuration file"):
        load_config(str(write_config(tmp_path / "fourth.yaml", {"extends": "absent.yaml"})))


def test_first_arm_is_in_production_unless_another_is_named(tmp_path):
    values = small_values()
    del values["production"]
    assert load_config(str(write_config(tmp_path / "c.yaml", values))).production == "baseline"
    values["production"] = "sparse_optimizer"
    assert load_config(str(write_config(tmp_path / "c.yaml", values))).production == "sparse_optimizer"


def test_pipelines_are_compiled_with_the_arms_of_the_shipped_configurations():
    for name in ("complete_journey", "simulator"):
        assert tuple(load_config(name).arms) == SHIPPED_ARMS


def test_production_names_an_arm(tmp_path):
    values = small_values() | {"production": "absent"}
    with pytest.raises(InputError, match="production: 'absent' is not among the arms"):
        load_config(str(write_config(tmp_path / "c.yaml", values)))


def test_equal_recipes_with_other_seeds_are_a_test_of_equals(tmp_path):
    values = small_values()
    values["arms"] = {"baseline": {"replicas": 2}, "same": {"seed": 1, "replicas": 2}}
    values["gate"] |= {"evidence": "confident"}
    config = load_config(str(write_config(tmp_path / "c.yaml", values)))
    seeds = [recipe.start(number).seed for recipe in config.arms.values() for number in range(2)]
    assert len(set(seeds)) == 4 and seeds[0] == 0
