"""The rollout: its steps by hand, and against two real servers under load, killed at any phase."""

from __future__ import annotations

import random
import shutil
import time

import numpy as np
import pytest

from components.common import storage
from components.common.deployments import Deployment, open_deployment, read_deployment
from components.common.errors import InputError
from components.common.layout import Store
from components.serve.client import RankerClient
from components.serve.rollout import Rollout
from components.serve.rollout_plan import RolloutPlan
from components.serve.rollout_steps import back, begin, next_step, step_back
from tests.serving import Load, Server

PHASES = ["ranker", "tables", "routing", "retiring", "steady"]


def test_steps_load_before_they_route_and_route_before_they_retire():
    step, seen = begin(Deployment(current="a"), "b"), []
    while True:
        seen.append((step.phase, step.rankers, step.tables, step.routes))
        if step.phase == "steady":
            break
        step = next_step(step, (0.25, 1.0))
    assert seen == [
        ("ranker", ("a", "b"), ("a",), {"a": 1.0}),
        ("tables", ("a", "b"), ("a", "b"), {"a": 1.0}),
        ("routing", ("a", "b"), ("a", "b"), {"a": 0.75, "b": 0.25}),
        ("routing", ("a", "b"), ("a", "b"), {"b": 1.0}),
        ("retiring", ("b",), ("b", "a"), {"b": 1.0}),
        ("steady", ("b",), ("b",), {"b": 1.0}),
    ]


def test_every_step_can_be_taken_up_again_and_back():
    step = begin(Deployment(current="a"), "b")
    for _ in range(3):
        assert begin(step, "b") == step
        taken, seen = back(step), []
        while taken.phase != "steady":
            assert taken.routes == {"a": 1.0}
            seen.append(taken.phase)
            taken = step_back(taken)
        assert taken == Deployment(current="a")
        assert seen == (["tables", "retiring"] if step.phase == "routing" else ["retiring"])
        with pytest.raises(InputError, match="a rollout to b is in phase"):
            begin(step, "c")
        step = next_step(step, (1.0,))
    assert step.phase == "retiring" and begin(step, "b") == step
    with pytest.raises(InputError, match="a is already going"):
        back(step)
    with pytest.raises(InputError, match="no rollout is under way: a answers all users"):
        back(Deployment(current="a"))


@pytest.mark.parametrize("shares", [(), (0.5,), (0.5, 0.2, 1.0), (0.0, 1.0)])
def test_shares_must_rise_to_all(shares):
    with pytest.raises(InputError, match="must rise"):
        RolloutPlan((), (), shares)


def test_record_is_made_of_production_once_and_a_damaged_one_is_named(published, fresh_store):
    assert open_deployment(fresh_store, "local") == Deployment(current=published.old)
    storage.write_bytes(fresh_store.pointer("CURRENT"), storage.read_bytes(fresh_store.pointer("EXPERIMENT")))
    assert open_deployment(fresh_store, "local") == Deployment(current=published.old)
    storage.write_bytes(fresh_store.deployment("local"), b'{"current":')
    with pytest.raises(InputError, match="local.json: cut short, or no record of this release; restore it"):
        read_deployment(fresh_store, "local")


@pytest.fixture
def tiers(fresh_store):
    with Server("embedding", fresh_store.root) as embedding:
        with Server("ranker", fresh_store.root, "--embedding-address", embedding.address) as ranker:
            embedding.wait_ready()
            ranker.wait_ready()
            yield embedding, ranker


def plan_of(tiers, **changes):
    embedding, ranker = tiers
    return RolloutPlan(
        (embedding.address,), (ranker.address,), **{"shares": (0.5, 1.0), "step_seconds": 60.0} | changes
    )


def go_to(rollout, now, target, phase):
    """Stop within a rollout, at the end of a phase."""
    next(step for step in rollout.steps(begin(now, target)) if step.phase == phase)


def test_twenty_rollouts_under_load_without_an_error_or_a_mismatch(published, fresh_store, tiers):
    draw = random.Random(11)
    rollout = Rollout(fresh_store, "local", plan_of(tiers))
    # The two versions differ by far more than a comparison allows: a mix of them would be seen.
    gaps = [
        np.abs(a - b).max()
        for a, b in zip(published.expected[published.old], published.expected[published.new], strict=True)
    ]
    assert np.median(gaps) > 1e-3
    with Load(published.tensors, published.expected, tiers[1].address) as load:
        for number in range(20):
            target = (published.new, published.old)[number % 2]
            for _ in rollout.steps(begin(open_deployment(fresh_store, "local"), target)):
                time.sleep(draw.uniform(0, 0.1))
            assert read_deployment(fresh_store, "local") == Deployment(current=target)
    assert set(load.outcomes) == {"right"}, load.outcomes
    assert load.outcomes["right"] > 500 and min(load.versions[published.old], load.versions[published.new]) > 100


@pytest.mark.parametrize("phase", PHASES[:-1])
@pytest.mark.parametrize("killed", [0, 1])
def test_tier_that_is_killed_in_any_phase_comes_back_and_the_rollout_goes_on(
    published, fresh_store, tiers, phase, killed
):
    plan = plan_of(tiers)
    with Load(published.tensors, published.expected, tiers[1].address, num_clients=2) as load:
        for step in Rollout(fresh_store, "local", plan).steps(
            begin(open_deployment(fresh_store, "local"), published.new)
        ):
            if step.phase == phase:
                break
        tiers[killed].kill()
        tiers[killed].start()
        # Another process takes the rollout up from the record, while the server is still starting.
        Rollout(fresh_store, "local", plan).to(published.new)
        tiers[killed].wait_ready()
        before = load.outcomes["right"]
        while load.outcomes["right"] < before + 20 and set(load.outcomes) == {"right"}:
            time.sleep(0.05)
    assert set(load.outcomes) == {"right"}, load.outcomes
    assert read_deployment(fresh_store, "local") == Deployment(current=published.new)


@pytest.mark.parametrize("phase", PHASES[:3])
def test_rollout_can_be_taken_back_under_load(published, fresh_store, tiers, phase):
    rollout = Rollout(fresh_store, "local", plan_of(tiers))
    with Load(published.tensors, published.expected, tiers[1].address, num_clients=2) as load:
        go_to(rollout, Deployment(current=published.old), published.new, phase)
        time.sleep(0.2)
        assert rollout.back() == Deployment(current=published.old)
        time.sleep(0.2)
    assert set(load.outcomes) == {"right"}, load.outcomes
    with RankerClient(tiers[1].address) as client:
        assert client.rank(published.requests[0]).version == published.old
        with pytest.raises(InputError, match="NOT_FOUND"):
            client.rank(published.requests[0], published.new)


@pytest.mark.parametrize("name", ["ranker.onnx", "tables.int4", "ids.bin", "manifest.json"])
def test_damaged_version_stops_the_rollout_and_the_old_one_answers_on(published, fresh_store, tiers, name):
    uri = storage.join_uri(fresh_store.version(published.new), name)
    storage.write_bytes(uri, storage.read_bytes(uri)[:-7])
    rollout = Rollout(fresh_store, "local", plan_of(tiers))
    with Load(published.tensors, published.expected, tiers[1].address, num_clients=1) as load:
        with pytest.raises(InputError, match=name.replace(".", r"\.")):
            rollout.to(published.new)
        if name != "manifest.json":
            assert rollout.back() == Deployment(current=published.old)
        time.sleep(0.2)
    assert set(load.outcomes) == {"right"} and set(load.versions) == {published.old}


def test_servers_of_another_deployment_or_store_are_not_rolled_out(published, fresh_store, tiers, tmp_path):
    """A mistyped name moves nothing, and a record that no server reads is not taken for success."""
    with pytest.raises(InputError, match=r"prod\.json: no such deployment"):
        Rollout(fresh_store, "prod", plan_of(tiers)).to(published.new)
    open_deployment(fresh_store, "prod")
    with pytest.raises(InputError, match="'prod' is not this server's deployment, which is 'local'"):
        Rollout(fresh_store, "prod", plan_of(tiers)).to(published.new)
    other = Store(str(tmp_path / "other"))
    shutil.copytree(fresh_store.root, other.root)
    with pytest.raises(InputError, match="does it read the same store"):
        Rollout(other, "local", plan_of(tiers)).to(published.new)
    with RankerClient(tiers[1].address) as client:
        assert client.rank(published.requests[0]).version == published.old


def test_second_rollout_stops_the_first(published, fresh_store, tiers):
    """Whoever writes the record last goes on; the other one notices before its next step, and nothing fails."""
    rollout = Rollout(fresh_store, "local", plan_of(tiers))
    with Load(published.tensors, published.expected, tiers[1].address, num_clients=2) as load:
        steps = rollout.steps(begin(open_deployment(fresh_store, "local"), published.new))
        while next(steps).phase != "routing":
            pass
        assert rollout.back() == Deployment(current=published.old)
        with pytest.raises(InputError, match="another rollout writes it; this one stops here"):
            next(steps)
        time.sleep(0.2)
    assert set(load.outcomes) == {"right"}, load.outcomes
    assert read_deployment(fresh_store, "local") == Deployment(current=published.old)


def test_damaged_old_version_is_not_gone_back_to(published, fresh_store, tiers):
    rollout = Rollout(fresh_store, "local", plan_of(tiers))
    go_to(rollout, Deployment(current=published.old), published.new, "routing")
    uri = storage.join_uri(fresh_store.version(published.old), "ranker.onnx")
    whole = storage.read_bytes(uri)
    storage.write_bytes(uri, whole[:-7])
    with pytest.raises(InputError, match=r"ranker\.onnx"):
        rollout.back()
    assert rollout.to(published.new) == Deployment(current=published.new)


def test_record_that_cannot_be_read_is_not_taken_for_none(published, fresh_store, monkeypatch):
    open_deployment(fresh_store, "local")
    before = storage.read_bytes(fresh_store.deployment("local"))

    def unreachable(uri):
        raise OSError(116, "Stale file handle")

    with monkeypatch.context() as patched, pytest.raises(OSError, match="Stale"):
        patched.setattr(storage, "read_bytes", unreachable)
        open_deployment(fresh_store, "local")
    assert storage.read_bytes(fresh_store.deployment("local")) == before


def test_absent_server_changes_nothing(published, fresh_store, tiers):
    before = open_deployment(fresh_store, "local")
    tiers[0].kill()
    with pytest.raises(InputError, match="no server answers .* nothing has changed"):
        Rollout(fresh_store, "local", plan_of(tiers, step_seconds=0.5)).to(published.new)
    assert read_deployment(fresh_store, "local") == before


def test_routing_to_tables_that_are_not_ready_is_refused(published, fresh_store, tiers):
    """Even when somebody writes the record by hand: the ranker asks before it routes."""
    wrong = Deployment(current=published.old, other=published.new, phase="routing", share=1.0)
    rollout = Rollout(fresh_store, "local", RolloutPlan((), (tiers[1].address,)))
    with Load(published.tensors, published.expected, tiers[1].address, num_clients=1) as load:
        with pytest.raises(InputError, match="FAILED_PRECONDITION: tables of version .* are not ready"):
            next(rollout.steps(wrong))
        time.sleep(0.2)
    assert set(load.outcomes) == {"right"} and set(load.versions) == {published.old}
