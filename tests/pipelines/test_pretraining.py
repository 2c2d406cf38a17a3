"""Pretrained tables by the pipelines, as kfp's local runner runs them, to an arm that starts from them."""

from __future__ import annotations

import pytest

from components.common.errors import InputError
from components.common.layout import Store
from components.common.manifests import read_manifest
from components.ranker.checkpoint import find_checkpoint
from components.ranker.pretrained import PretrainedManifest
from pipelines.config import load_config
from tests.conftest import small_values, write_config
from tests.pipelines.test_end_to_end import afterclick

BOUGHT = {"name": "bought", "action_type": "checkout"}


@pytest.fixture(scope="module")
def values() -> dict:
    values = small_values()
    values["pretrain"] = {
        "embedding_dim": 8,
        "edges": {"num_days": 8},
        "contrastive": {"epochs": 1, "batch_size": 128, "num_negatives": 32},
        "num_threads": 1,
    }
    values["arms"]["sparse_optimizer"] = {
        "optimizer": {"table_multiplier": 50, "tables": "lazy_adam"},
        "pretrained": {},
    }
    return values


@pytest.mark.parametrize("mode", ["finetuned", "single_stage"])
def test_tables_of_exact_ids_are_not_pretrained(values, tmp_path, mode):
    items = {"name": "item_id", "exact": {"capacity": 50}}
    categorical = [items if own["name"] == "item_id" else own for own in values["features"]["categorical"]]
    recipe = values["arms"]["sparse_optimizer"] | {"pretrained": {"mode": mode}}
    own = values | {"features": values["features"] | {"categorical": categorical}}
    own["arms"] = values["arms"] | {"sparse_optimizer": recipe}
    with pytest.raises(InputError, match="item_id' has exact ids, which are not pretrained; give it num_rows"):
        load_config(str(write_config(tmp_path / "own.yaml", own)))


@pytest.fixture(scope="module")
def ran(values, tmp_path_factory) -> tuple[Store, str, str]:
    """A store after its batch, the configuration's file, and what was printed."""
    folder = tmp_path_factory.mktemp("pretraining")
    config, store = write_config(folder / "own.yaml", values), Store(str(folder / "store"))
    printed = afterclick("run", "-c", str(config), "-s", store.root, "--max-days", "0")
    return store, str(config), printed


def test_a_batch_pretrains_what_its_arms_start_from(ran):
    store, _, printed = ran
    assert "pretraining run, window until 2026-01-10" in printed
    (day,) = store.pretrained_days()
    manifest = read_manifest(store.pretrained(day), PretrainedManifest)
    candidate, control = (find_checkpoint(store, arm, day) for arm in ("sparse_optimizer", "baseline"))
    assert candidate is not None and control is not None
    assert candidate.origin.inputs["pretrained"] == manifest.content_digest
    assert "pretrained" not in control.origin.inputs


def test_a_refresh_goes_to_the_newest_logs_and_starts_from_the_tables_before(ran):
    store, config, _ = ran
    printed = afterclick("pretrain", "-c", config, "-s", store.root)
    days = store.pretrained_days()
    assert days[-1] == store.clean_days()[-1] and f"starts from the tables through {days[0]}" in printed


def test_neighbours_are_items_of_the_logs(ran):
    store, _, _ = ran
    refused = afterclick("neighbours", "no such item", "-s", store.root, expect=1)
    assert "not among the" in refused and "such as" in refused
    item = refused.split("such as ")[1].split(",")[0]
    printed = afterclick("neighbours", item, "-s", store.root, "--count", "3")
    assert f"Nearest to {item}" in printed and len([line for line in printed.splitlines() if "│" in line]) == 3


@pytest.mark.parametrize(
    ("section", "changes", "message"),
    [
        ("pretrain", {"embedding_dim": 16}, "an arm starts from rows of its own length"),
        ("pretrain", None, "there is no section pretrain"),
        ("retention", {"edge_days": 7}, "edge_days = 7 is less than the window of pretrain.edges.num_days = 8"),
        ("pretrain", {"edges": {"relations": [BOUGHT, {**BOUGHT, "name": "x", "target": "surface"}]}}, "of actions"),
        ("features", {"categorical": "concatenate"}, "set combine: sum"),
    ],
)
def test_what_does_not_fit_is_named_before_anything_runs(values, tmp_path, section, changes, message):
    values = {**values}
    if changes is None:
        del values[section]
    elif changes == {"categorical": "concatenate"}:
        code = {"code_bits": 10, "block_bits": 5, "combine": "concatenate"}
        first, *rest = values["features"]["categorical"]
        values["features"] = {
            **values["features"],
            "categorical": [{"name": first["name"], "binary_code": code}, *rest],
        }
    else:
        values[section] = values.get(section, {}) | changes
    config = write_config(tmp_path / "own.yaml", values)
    with pytest.raises(InputError, match=message):
        load_config(str(config))
