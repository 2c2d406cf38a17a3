"""A changed recipe is found before anything is written, field by field."""

from __future__ import annotations

from datetime import date
from pathlib import Path

import pytest

from components.common import storage
from components.common.arms import ArmRecipe, write_recipe
from components.common.config import ResolvedConfig
from components.common.errors import InputError
from components.common.layout import Store
from components.common.store_format import claim_format
from components.schedule.run import Assignment, main_pick
from pipelines.config import load_config
from tests.conftest import small_values, write_config

# The day that the batch was scored on, which the first daily run scores as well.
SCORED = date(2026, 1, 7)


def changed(values: dict, path: str, value: object) -> dict:
    *parents, last = path.split(".")
    section = values
    for name in parents:
        section = section.setdefault(name, {})
    section[last] = value
    return values


def without_price(values: dict) -> dict:
    values["features"]["numbers"].remove("price")
    return values


def with_quality_table(values: dict) -> dict:
    values["features"]["categorical"][0]["num_rows"] = 4096
    del values["features"]["categorical"][-1]
    return values


@pytest.fixture()
def store(small_config, tmp_path) -> Store:
    """A store whose batch is finished, trained by `small_values`."""
    store = Store(str(tmp_path / "store"))
    claim_format(store)
    config = ResolvedConfig.open(small_config.write(store))
    for arm in ("baseline", "sparse_optimizer"):
        write_recipe(store, ArmRecipe.of(config, arm))
    storage.write_bytes(store.finished_run("batch", small_config.schedule.first_day), b"{}")
    return store


def pick(store: Store, tmp_path: Path, values: dict) -> Assignment:
    config = load_config(str(write_config(tmp_path / "changed.yaml", values)))
    return main_pick(store.root, config.write(store), "daily", "2026-01-20")


def files_of(store: Store) -> set[str]:
    return {str(path) for path in Path(store.root).rglob("*") if "configs" not in path.parts}


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (
            lambda v: changed(v, "train.seed", 7),
            ["arms.baseline.seed: 7, was 0", "arms.sparse_optimizer.seed: 7, was 0"],
        ),
        (lambda v: changed(v, "train.batch_size", 100), ["arms.baseline.batch_size: 100, was 256"]),
        (lambda v: changed(v, "train.precision", "bfloat16"), ["arms.baseline.precision: bfloat16, was float32"]),
        (
            lambda v: changed(v, "arms.sparse_optimizer.objective_weights", {"click": 2.0}),
            ["arms.sparse_optimizer.objective_weights.click: 2.0, was absent"],
        ),
        (
            lambda v: changed(v, "arms.sparse_optimizer.optimizer.table_multiplier", 25.0),
            ["arms.sparse_optimizer.optimizer.table_multiplier: 25.0, was 50.0"],
        ),
        (lambda v: changed(v, "join.salt", 1), ["join.salt: 1, was 20170301"]),
        (lambda v: changed(v, "join.negative_keep_rate", 0.25), ["join.negative_keep_rate: 0.25, was 0.5"]),
        (
            lambda v: changed(v, "dataset.attribution.checkout.view_through_days", 1),
            ["dataset.attribution.checkout.view_through_days: 1, was 2"],
        ),
        (lambda v: changed(v, "dataset.good_click.at_least", 20.0), ["dataset.good_click.at_least: 20.0, was 30.0"]),
        (without_price, ["features.numbers: ['quality'], was ['quality', 'price']"]),
        (
            with_quality_table,
            ["features.categorical.user_id.num_rows: 4096, was 2048", "features.categorical.day_of_week: absent, was"],
        ),
    ],
)
def test_changed_recipe_is_refused_with_each_field(store, tmp_path, change, said):
    before = files_of(store)
    with pytest.raises(InputError, match="were trained by another recipe") as raised:
        pick(store, tmp_path, change(small_values()))
    for text in said:
        assert text in str(raised.value)
    assert str(raised.value).count("features.") <= 2 and files_of(store) == before


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("train.epochs", 3),
        ("train.steps_per_point", 99),
        ("train.num_threads", 2),
        ("train.execution", {"resume_minutes": 1.0}),
        ("gate.num_days", 3),
        ("evaluation.num_replicates", 30),
        ("dataset.closed_days", ["2026-01-17"]),
        ("validation.sample_rows", 1000),
    ],
)
def test_what_makes_no_other_model_may_change(store, tmp_path, path, value):
    assert pick(store, tmp_path, changed(small_values(), path, value)).event_date == SCORED


def test_unchanged_recipe_goes_on(store, tmp_path):
    assert pick(store, tmp_path, small_values()).event_date == SCORED
