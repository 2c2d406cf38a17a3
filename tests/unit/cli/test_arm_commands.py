"""`afterclick arms`, on records made by hand."""

from __future__ import annotations

import json
from datetime import date

import pytest
from typer.testing import CliRunner

from cli.arm_commands import describe_arms
from cli.main import app
from components.common import storage
from components.common.arms import ArmCosts, ArmFailure, ArmRecipe, find_retirement, starts_of, write_recipe
from components.common.layout import Store
from components.common.records import write_record
from components.common.releases import Pointer
from components.common.store_format import claim_format
from components.common.trials import Gain, write_trial
from tests.unit.gate.rows import trial, with_verdict

DAY = date(2026, 1, 5)


@pytest.fixture()
def store(tmp_path) -> Store:
    """An arm in production, one on trial with two starts, one that failed."""
    store = Store(str(tmp_path / "store"))
    claim_format(store)
    storage.write_bytes(storage.join_uri(store.root, "logs", "kept"), b"")
    for arm, replicas in (("baseline", 1), ("sparse_optimizer", 2), ("wild", 0)):
        write_recipe(store, ArmRecipe(arm=arm, values={"train": {"arm": arm}}))
        for model in starts_of(arm, replicas)[:replicas]:
            for day in (4, 5):
                through = date(2026, 1, day)
                manifest = storage.join_uri(store.checkpoint(model, through), storage.MANIFEST_NAME)
                storage.write_bytes(manifest, b"{}")
                write_record(store.arm_costs(model, through), ArmCosts(seconds=1.5, examples=10))
    pointer = Pointer(version="v", arm="baseline", checkpoint_digest="c", trained_through=DAY, published_on=DAY)
    write_record(store.pointer("CURRENT"), pointer)
    write_record(store.arm_failure("wild"), ArmFailure(arm="wild", day=DAY, reason="not finite"))
    gain = Gain(percent=0.25, low=None, high=None)
    write_trial(store, with_verdict(trial(first_day=DAY), DAY, "undecided", gain=gain))
    return store


def arms(*arguments: str, expect: int = 0) -> str:
    found = CliRunner().invoke(app, ["arms", *arguments])
    assert found.exit_code == expect, found.output
    return found.output


def test_arms_are_listed_with_state_gain_and_costs(store):
    found = {one["name"]: one for one in map(json.loads, arms("--store", store.root, "--json").splitlines())}
    assert {name: one["state"] for name, one in found.items()} == {
        "baseline": "in production",
        "sparse_optimizer": "on trial",
        "wild": "failed",
    }
    sparse = found["sparse_optimizer"]
    assert (sparse["replicas"], sparse["days"], sparse["gain_percent"], sparse["against"]) == (2, 2, 0.25, "baseline")
    assert sparse["train_seconds"] == 6.0 and found["baseline"]["train_seconds"] == 3.0
    assert "+0.250%" in arms("--store", store.root)


def test_arm_is_retired_and_taken_up_again(store):
    assert "arms.retired: sparse_optimizer" in arms("retire", "sparse_optimizer", "--store", store.root)
    retirement = find_retirement(store, "sparse_optimizer")
    assert retirement is not None and not retirement.by_gate
    assert {one.name: one.state for one in describe_arms(store)}["sparse_optimizer"] == "retired"
    arms("retry", "sparse_optimizer", "--store", store.root)
    arms("retry", "wild", "--store", store.root)
    states = {one.name: one.state for one in describe_arms(store)}
    assert (states["sparse_optimizer"], states["wild"]) == ("on trial", "training")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("retire", "baseline"), "is in production"),
        (("retire", "nobody"), "no arm 'nobody'"),
        (("retry", "baseline"), "neither failed nor been retired"),
    ],
)
def test_what_cannot_be_done_is_said(store, arguments, said):
    found = CliRunner().invoke(app, ["arms", *arguments, "--store", store.root])
    assert found.exit_code == 1 and said in " ".join(found.output.split())
