from datetime import date, timedelta

import pytest

from components.common import storage
from components.common.arms import ArmFailure, ArmRetirement
from components.common.config import ResolvedConfig
from components.common.errors import InputError
from components.common.layout import Store
from components.common.records import write_record
from components.common.releases import Pointer
from components.common.trials import read_trials
from components.gate.config import GateConfig
from components.gate.open_trials import alpha_of_new, open_trials
from tests.unit.gate.rows import trial

THROUGH, DAY = date(2026, 1, 4), date(2026, 1, 5)
GATE = GateConfig(alpha=0.04, alpha_period_days=30, trial_days=10, look_every_days=4)


@pytest.fixture()
def store(tmp_path) -> Store:
    """Two arms with a checkpoint, nothing published."""
    store = Store(str(tmp_path))
    for arm in ("baseline", "sparse_optimizer"):
        trained(store, arm)
    return store


def trained(store: Store, model: str, through: date = THROUGH) -> None:
    storage.write_bytes(storage.join_uri(store.checkpoint(model, through), storage.MANIFEST_NAME), b"{}")


def config(small_config, gate: GateConfig = GATE, **arms: dict) -> ResolvedConfig:
    values = small_config.model_dump(mode="json")
    plain = values["arms"]["baseline"]
    values["arms"] |= {name: {**plain, **recipe} for name, recipe in arms.items()}
    return ResolvedConfig("", {**values, "gate": gate.model_dump(mode="json")})


def opened(store: Store, config: ResolvedConfig, day: date = DAY):
    return open_trials(store, config, "daily", day, day - timedelta(days=1))


def promoted(store: Store, arm: str, over: str, since: date) -> None:
    pointer = Pointer(
        version="v",
        arm=arm,
        checkpoint_digest="c",
        trained_through=since,
        published_on=since,
        arm_since=since,
        replaced=over,
    )
    write_record(store.pointer("CURRENT"), pointer)


def test_trial_is_recorded_once_before_its_first_day(store, small_config):
    (first,) = opened(store, config(small_config))
    assert (first.kind, first.candidate, first.control, first.first_day) == (
        "candidate",
        "sparse_optimizer",
        "baseline",
        DAY,
    )
    assert first.looks == (4, 8, 10) and first.alpha == pytest.approx(0.02)
    assert read_trials(store) == [first]
    trained(store, "baseline", DAY)
    trained(store, "sparse_optimizer", DAY)
    assert opened(store, config(small_config), DAY + timedelta(days=1)) == [], "nobody is tried twice"


def test_point_estimates_are_looked_at_every_day(store, small_config):
    gate = GATE.model_copy(update={"evidence": "point", "num_days": 7})
    (first,) = opened(store, config(small_config, gate))
    assert first.looks == (7, 8, 9, 10) and first.evidence == "point"


def test_arm_is_on_trial_once_every_start_can_be_scored(store, small_config):
    with_starts = config(small_config, fal={"seed": 7, "replicas": 2})
    trained(store, "fal")
    assert [one.candidate for one in opened(store, with_starts)] == ["sparse_optimizer"]
    trained(store, "fal.1")
    assert [one.candidate for one in opened(store, with_starts)] == ["fal"]


def test_failed_and_retired_arms_are_not_tried(store, small_config):
    write_record(store.arm_failure("sparse_optimizer"), ArmFailure(arm="sparse_optimizer", day=THROUGH, reason="x"))
    assert opened(store, config(small_config)) == []
    storage.remove(store.arm_failure("sparse_optimizer"))
    retired = ArmRetirement(arm="sparse_optimizer", day=THROUGH, reason="x", by_gate=False)
    write_record(store.arm_retirement("sparse_optimizer"), retired)
    assert opened(store, config(small_config)) == []


def test_replaced_arm_is_on_probation_and_the_others_are_tried_anew(store, small_config):
    own = config(small_config, fal={"seed": 7})
    opened(store, config(small_config))
    promoted(store, "sparse_optimizer", "baseline", DAY)
    for arm in ("baseline", "sparse_optimizer", "fal"):
        trained(store, arm, DAY)
    found = {one.candidate: one for one in opened(store, own, DAY + timedelta(days=1))}
    assert {name: one.kind for name, one in found.items()} == {"baseline": "probation", "fal": "candidate"}
    assert found["baseline"].looks == (4, 8, 12, 14) and found["baseline"].alpha == 0.04
    assert found["fal"].alpha == pytest.approx(0.01), "half of what the first trial has left"


def test_no_probation_if_it_takes_no_days(store, small_config):
    promoted(store, "sparse_optimizer", "baseline", THROUGH)
    assert opened(store, config(small_config, GATE.model_copy(update={"probation_days": 0}))) == []


def test_killed_between_two_trials_gives_the_second_the_same_share():
    both = alpha_of_new([], DAY, GATE, 2)
    first = trial(first_day=DAY, alpha=both, evidence="confident")
    assert alpha_of_new([first], DAY, GATE, 1) == both


def test_trials_of_a_period_never_spend_more_than_alpha():
    known, day = [], DAY
    for number in range(40):
        share = alpha_of_new(known, day, GATE, 1 + number % 3)
        known += [
            trial(candidate=f"a{number}{place}", first_day=day, alpha=share, evidence="confident")
            for place in range(1 + number % 3)
        ]
        day += timedelta(days=number % 4 + 1)
        within = [one.alpha for one in known if (day - one.first_day).days < GATE.alpha_period_days]
        assert share > 0 and sum(within) <= GATE.alpha + 1e-12
    long_after = day + timedelta(days=GATE.alpha_period_days)
    assert alpha_of_new(known, long_after, GATE, 1) == pytest.approx(0.02)


def test_arm_in_production_cannot_be_left_out(store, small_config):
    promoted(store, "gone", "baseline", THROUGH)
    with pytest.raises(InputError, match=r"gone is in production .* put it back"):
        opened(store, config(small_config))
