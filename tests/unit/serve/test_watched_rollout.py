"""Rollouts that watch themselves: real servers under load, and versions with faults that are taken back."""

from __future__ import annotations

import subprocess
import sys
from datetime import date

import numpy as np
import pytest

from components.common.config import ResolvedConfig
from components.common.deployments import Deployment, open_deployment, read_deployment, write_deployment
from components.common.errors import InputError
from components.common.records import write_record
from components.common.releases import known_pointer
from components.common.rollouts import find_replaced, find_rolled_back, read_rollout
from components.serve.config import RolloutLimits, ServingConfig
from components.serve.rollout import Rollout
from components.serve.rollout_figures import Counted, shadow_figures
from components.serve.rollout_plan import RolloutPlan, TakenBack
from components.serve.run import main, roll_out
from tests.serving import PATIENT, Load, free_port, started_tiers
from tests.spoiled import publish_spoiled

# Both arms' models differ much: that is no fault here.
LIMITS = RolloutLimits(min_requests=40, wait_seconds=60, max_mean_change=0.45, max_slowdown=2.5)


@pytest.fixture(scope="module")
def tiers(published, tmp_path_factory):
    """Servers of a store of their own, with one ranker more than there are embedding servers."""
    from tests.published import registry_copy

    store = registry_copy(published, tmp_path_factory.mktemp("watched"))
    with started_tiers(store.root, 1, 2, *PATIENT) as ((embedding,), rankers):
        yield store, embedding, rankers


def rollout_of(tiers, **changes):
    store, embedding, rankers = tiers
    plan = {"shares": (0.3, 1.0), "step_seconds": 60.0, "limits": LIMITS} | changes
    return Rollout(store, "local", RolloutPlan((embedding.address,), tuple(one.address for one in rankers), **plan))


def command(*arguments):
    """Run the command line of the serving image; returns what it printed."""
    done = subprocess.run([sys.executable, "-m", "cli.serve", *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


class Loads:
    """A load on each ranker, which knows what a version owes."""

    def __init__(self, published, rankers, known):
        self.loads = [Load(published.tensors, known, ranker.address, num_clients=2) for ranker in rankers]

    def __enter__(self):
        for load in self.loads:
            load.__enter__()
        return self

    def __exit__(self, *_):
        for load in self.loads:
            load.__exit__()

    @property
    def outcomes(self):
        return self.loads[0].outcomes + self.loads[1].outcomes

    @property
    def versions(self):
        return self.loads[0].versions + self.loads[1].versions


@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        ("shifted", r"the mean of \w+ is .* max_mean_change = 0\.45"),
        ("unknown", r"the mean of \w+ is nan"),
        ("failing", r"requests failed, 0 of \d+ of the old version; max_error_increase = 0\.01"),
        ("slow", r"the net took up to .* max_slowdown = 2\.5"),
    ],
)
def test_version_with_a_fault_is_taken_back_by_itself(published, tiers, fault, reason):
    """Without shadow: some users meet the fault, nobody else, and afterwards nobody."""
    store, _, rankers = tiers
    spoiled = publish_spoiled(store, published.old, fault)
    factor = {"shifted": 0.5, "unknown": np.nan}.get(fault, 1.0)
    expected = {**published.expected, spoiled: [values * factor for values in published.expected[published.old]]}
    with Loads(published, rankers, expected) as loads:
        with pytest.raises(TakenBack, match=reason):
            rollout_of(tiers).to(spoiled)
        answered = loads.versions[published.old]
        met = loads.versions[spoiled]
        loads.loads[0].wait_for(10)
    assert read_deployment(store, "local") == Deployment(current=published.old)
    record = find_rolled_back(store, "local", spoiled)
    assert record.is_fault and record.kept == published.old and record.figures["new_requests"] > 0
    wrong = {outcome for outcome in loads.outcomes if outcome != "right"}
    if fault == "failing":
        assert all("INTERNAL" in outcome for outcome in wrong) and wrong
        assert loads.outcomes["right"] > 2 * sum(loads.outcomes[outcome] for outcome in wrong)
    elif fault == "unknown":
        # NaN equals nothing, so each of the share's answers counts as a mismatch.
        assert wrong == {"mismatch"} and loads.outcomes["mismatch"] <= met + 4
    else:
        assert wrong == set() and answered > met


def test_fault_is_found_in_shadow_before_any_user_meets_it(published, tiers):
    store, _, rankers = tiers
    spoiled = publish_spoiled(store, published.new, "failing")
    with Loads(published, rankers, published.expected) as loads:
        with pytest.raises(TakenBack, match="max_error_increase"):
            rollout_of(tiers, shadow_share=1.0).to(spoiled)
        # A killed rollout is started again, and says the same without a step.
        with pytest.raises(TakenBack, match="--again tries it all the same"):
            rollout_of(tiers, shadow_share=1.0).to(spoiled)
    assert set(loads.outcomes) == {"right"} and set(loads.versions) == {published.old}
    assert find_rolled_back(store, "local", spoiled).figures["shadow_errors"] > 0


def test_good_version_passes_and_shadow_says_how_it_differs(published, tiers):
    store, embedding, rankers = tiers
    counted = Counted([f"http://localhost:{ranker.http_port}/metrics" for ranker in rankers])
    counted.ask()
    with Loads(published, rankers, published.expected) as loads:
        rollout = rollout_of(tiers, shadow_share=0.5)
        assert rollout.to(published.new) == Deployment(current=published.new)
        # By hand at night: the version before, and the one that went is not tried again.
        counted.ask()
        assert find_replaced(store, "local").version == published.old
        flags = ["--ranker-servers", ",".join(one.address for one in rankers), "--embedding-servers", embedding.address]
        printed = command("rollback", "--store", store.root, "--reason", "checkout errors", *flags)
        assert f"rollout.phase: steady: {published.old[:12]} answers all users" in printed
        assert read_deployment(store, "local") == Deployment(current=published.old)
        assert "answers: checkout errors" in command("rollout", "--status", "--store", store.root)
        with pytest.raises(TakenBack, match="checkout errors; --again"):
            rollout.to(published.new)
        with pytest.raises(InputError, match="is the version before, name another"):
            rollout.undo()
    assert set(loads.outcomes) == {"right"} and set(loads.versions) == {published.old, published.new}
    shadow = shadow_figures(counted.since, published.new)
    assert shadow.requests >= LIMITS.min_requests and not shadow.errors
    for row, name in enumerate(("checkout_given_click", "checkout_given_view")):
        pairs = zip(published.expected[published.new], published.expected[published.old], strict=True)
        differences = [np.abs(new[row] - old[row]).mean() for new, old in pairs]
        assert min(differences) <= shadow.differences[name].value <= max(differences)
        means = [found[row].mean() for found in published.expected[published.new]]
        assert min(means) <= shadow.predictions[name].value <= max(means)


def test_without_requests_the_plan_says_what_happens(published, tiers):
    store, _, _ = tiers
    few = LIMITS.model_copy(update={"wait_seconds": 0.0})
    with pytest.raises(TakenBack, match="too few requests to judge by: new_requests 0"):
        rollout_of(tiers, limits=few).to(published.new, again=True)
    assert not find_rolled_back(store, "local", published.new).is_fault
    go_on = few.model_copy(update={"few_requests": "go_on"})
    assert rollout_of(tiers, limits=go_on).to(published.new) == Deployment(current=published.new)
    assert find_rolled_back(store, "local", published.new) is None
    assert rollout_of(tiers).undo() == Deployment(current=published.old)


def config_uri(tiers, **limits):
    """A run's configuration that names the servers."""
    store, embedding, rankers = tiers
    serving = ServingConfig(
        deployment="local",
        ranker_servers=tuple(ranker.address for ranker in rankers),
        embedding_servers=(embedding.address,),
        shares=(0.3, 1.0),
        hold_seconds=0,
        shadow_share=0.5,
        step_seconds=60,
        limits=LIMITS.model_copy(update=limits),
    )
    return ResolvedConfig.write(store.configs(), {"serving": serving.model_dump(mode="json")}).uri


def test_runs_roll_out_what_is_in_production_and_no_faulty_version_again(published, tiers, capsys):
    store, _, rankers = tiers
    before, steady = known_pointer(store), Deployment(current=published.old)
    spoiled = publish_spoiled(store, published.old, "failing")
    write_record(store.pointer("CURRENT"), before.model_copy(update={"version": spoiled}))
    with Loads(published, rankers, published.expected) as loads:
        first = main(store.root, config_uri(tiers), "daily", "2026-01-12")
        assert (first.result, first.version) == ("rolled_back", spoiled) and "max_error_increase" in first.reasons[0]
        assert f"2026-01-12: ALARM: local: {spoiled[:12]} is rolled back" in capsys.readouterr().out
        assert read_rollout(store, "daily", date(2026, 1, 12)) == first
        # The next night: said again, and not tried.
        assert main(store.root, config_uri(tiers), "daily", "2026-01-13") == first
        assert "phase" not in capsys.readouterr().out and read_deployment(store, "local") == steady
        # Killed between the record and the first step back, or within the way back: it goes on there.
        for phase in ("routing", "tables", "retiring"):
            share = {"share": 0.3, "shadow_share": 0.5} if phase == "routing" else {}
            write_deployment(store, "local", Deployment(current=published.old, other=spoiled, phase=phase, **share))
            assert main(store.root, config_uri(tiers), "daily", "2026-01-12") == first
            assert read_deployment(store, "local") == steady
        # Other limits are a cause to try it again.
        again = main(store.root, config_uri(tiers, max_error_increase=0.5), "daily", "2026-01-14")
        assert again.result == "rolled_back" and "max_error_increase = 0.5" in again.reasons[0]
        assert find_rolled_back(store, "local", spoiled).limits["max_error_increase"] == 0.5
    assert set(loads.outcomes) == {"right"} and set(loads.versions) == {published.old}
    write_record(store.pointer("CURRENT"), before)
    assert main(store.root, config_uri(tiers), "daily", "2026-01-15").result == "serving"


def test_run_is_told_when_servers_are_not_there(published, fresh_store):
    open_deployment(fresh_store, "local")
    spoiled = publish_spoiled(fresh_store, published.old, "shifted")
    pointer = known_pointer(fresh_store).model_copy(update={"version": spoiled})
    write_record(fresh_store.pointer("CURRENT"), pointer)
    absent = ServingConfig(deployment="local", ranker_servers=(f"localhost:{free_port()}",), step_seconds=0.2)
    outcome = roll_out(fresh_store, absent)
    assert outcome.result == "failed" and "no server answers" in outcome.reasons[0]
    outcome = roll_out(fresh_store, absent.model_copy(update={"ca": "ca.crt", "certificate": "tls.crt"}))
    assert outcome.result == "failed" and "give both, or neither" in outcome.reasons[0]
    assert read_deployment(fresh_store, "local") == Deployment(current=published.old)
    assert "no such deployment" in roll_out(fresh_store, absent.model_copy(update={"deployment": "prod"})).reasons[0]
