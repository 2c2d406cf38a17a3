from datetime import date

import pytest

from components.common.config import ResolvedConfig
from components.common.layout import Store
from components.common.ledger import write_row
from components.common.records import write_record
from components.common.releases import Pointer, Publication, read_blessing
from components.common.trials import Gain, write_trial
from components.gate.config import GateConfig
from components.gate.release_rules import ReleaseRules, decide_release
from components.gate.run import judge_day
from tests.unit.gate.rows import ledger_row, trial, with_verdict

CONFIG = GateConfig(evidence="point", num_days=2, min_positives=100, on_blessing="promote")
DAY = date(2026, 1, 2)


def pointer(arm="baseline", checkpoint="baseline-1"):
    return Pointer(
        version="v", arm=arm, checkpoint_digest=checkpoint, trained_through=date(2025, 12, 31), published_on=DAY
    )


def rows(candidate=0.7, control=0.7, served=0.7):
    found = [ledger_row("baseline", day, control) for day in (1, 2)]
    found += [ledger_row("sparse_optimizer", day, candidate) for day in (1, 2)]
    return [*found, ledger_row("served", 2, served, checkpoint="baseline-1")]


def judged(answer="blessed", day=DAY, gain=None, **changes):
    """A trial with an answer."""
    return with_verdict(trial(**changes), day, answer, gain=gain)


def decide(pipeline, found, production=None, config=CONFIG, trials=(), arm="baseline", notes=(), excluded=frozenset()):
    rules = ReleaseRules(found, DAY, production, production.arm if production else arm, trials, config)
    return decide_release(pipeline, rules, notes, excluded)


def released(blessing):
    return [(release.action, release.arm, release.checkpoint_digest) for release in blessing.releases]


def test_first_model_is_the_control_if_it_passes_the_floors():
    blessing = decide("batch", [ledger_row("baseline", 2)], None, CONFIG)
    assert released(blessing) == [("first", "baseline", "baseline-2")]
    assert not blessing.blessed


def test_first_model_is_the_one_that_is_named():
    better = [ledger_row("sparse_optimizer", 2, auc=0.75), ledger_row("baseline", 2, auc=0.65)]
    assert released(decide("batch", better))[0][:2] == ("first", "baseline")
    assert released(decide("batch", better, arm="sparse_optimizer"))[0][:2] == ("first", "sparse_optimizer")


def test_first_model_counts_positives_over_the_window():
    config = CONFIG.model_copy(update={"num_days": 2, "min_positives": 60})
    blessing = decide("batch", [ledger_row("baseline", 2, positives=40)], None, config)
    assert "80" not in str(blessing.withheld) and "gate.min_positives = 60" in str(blessing.withheld)
    both = [ledger_row("baseline", day, positives=40) for day in (1, 2)]
    assert released(decide("batch", both, None, config)) == [("first", "baseline", "baseline-2")]
    few = decide("batch", [ledger_row("baseline", 2, positives=20)], None, config)
    assert "2 such days never have: lower it, or take more days" in str(few.withheld)


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        (ledger_row("baseline", 2, auc=0.55), "at least 0.6"),
        (ledger_row("baseline", 2, auc=None), "undefined"),
        (ledger_row("baseline", 2, calibration=3.0), "calibration"),
        (ledger_row("baseline", 2, positives=3), "positives"),
        (ledger_row("served", 2), "not scored"),
    ],
)
def test_first_model_fails_closed(row, reason):
    blessing = decide("batch", [row], None, CONFIG)
    assert blessing.releases == ()
    assert reason in "; ".join(blessing.withheld)


def test_fresh_checkpoint_replaces_the_served_one():
    blessing = decide("daily", rows(), pointer(), CONFIG)
    assert released(blessing) == [("refresh", "baseline", "baseline-2")]


@pytest.mark.parametrize(
    ("found", "reason"),
    [
        (rows(candidate=0.69, control=0.69), "falls from 0.7000 to 0.6900"),
        (rows()[:-1], "not both scored"),
        (rows()[:3] + [ledger_row("served", 2, None)], "no AUC"),
        ([*rows()[:1], ledger_row("baseline", 2, calibration=2.0), *rows()[2:]], "calibration"),
        (
            [ledger_row(arm, day, positives=3) for arm in ("baseline", "sparse_optimizer") for day in (1, 2)]
            + [ledger_row("served", 2, positives=3)],
            "positives",
        ),
    ],
)
def test_refresh_fails_closed(found, reason):
    blessing = decide("daily", found, pointer(), CONFIG)
    assert blessing.releases == ()
    assert reason in "; ".join(blessing.withheld)


def test_served_checkpoint_is_not_published_again():
    blessing = decide("daily", rows(), pointer(checkpoint="baseline-2"), CONFIG)
    assert blessing.releases == () and "served already" in blessing.withheld[0]


def test_blessed_candidate_is_promoted_if_the_configuration_says_so():
    blessing = decide("daily", rows(candidate=0.71), pointer(), trials=[judged()])
    assert blessing.blessed and blessing.reasons == ("sparse_optimizer is blessed: so it is",)
    assert released(blessing) == [("promote", "sparse_optimizer", "sparse_optimizer-2")]


def test_best_of_several_blessed_candidates_is_promoted():
    found = [*rows(candidate=0.71), ledger_row("fal", 2, 0.72)]
    gains = {"sparse_optimizer": Gain(percent=0.5, low=None, high=None), "fal": Gain(percent=0.9, low=None, high=None)}
    trials = [judged(candidate=arm, gain=gain) for arm, gain in gains.items()]
    assert released(decide("daily", found, pointer(), trials=trials)) == [("promote", "fal", "fal-2")]


def test_experiment_does_not_keep_production_from_being_refreshed():
    config = CONFIG.model_copy(update={"on_blessing": "experiment"})
    blessing = decide("daily", rows(candidate=0.71), pointer(), config, [judged()])
    assert [name for name, *_ in released(blessing)] == ["experiment", "refresh"]
    assert [release.channel for release in blessing.releases] == ["EXPERIMENT", "CURRENT"]


def test_blessed_candidate_that_fails_on_the_newest_day_is_withheld():
    found = [ledger_row("baseline", day) for day in (1, 2)] + [ledger_row("served", 2, checkpoint="baseline-1")]
    found += [ledger_row("sparse_optimizer", 1, 0.9), ledger_row("sparse_optimizer", 2, 0.6)]
    blessing = decide("daily", found, pointer(), trials=[judged()])
    assert blessing.blessed
    assert released(blessing) == [("refresh", "baseline", "baseline-2")]
    assert "promote of sparse_optimizer: checkout_given_click falls" in blessing.withheld[0]


def test_blessing_stands_until_it_can_be_followed():
    earlier = judged(day=date(2026, 1, 1))
    assert released(decide("daily", rows(candidate=0.71), pointer(), trials=[earlier]))[0][0] == "promote"


@pytest.mark.parametrize(
    ("trials", "production"),
    [
        ([judged("undecided")], {}),
        ([judged("rejected")], {}),
        ([judged(control="another")], {}),
        ([judged(day=date(2026, 1, 1))], {"arm_since": DAY}),
    ],
)
def test_only_a_blessing_against_this_production_promotes(trials, production):
    """One that was given before production came back to its arm was for what turned out worse."""
    found = decide("daily", rows(candidate=0.71), pointer().model_copy(update=production), trials=trials)
    assert [name for name, *_ in released(found)] == ["refresh"]


def test_arm_on_probation_comes_back_before_any_promotion():
    back = judged(kind="probation", candidate="baseline", control="sparse_optimizer")
    other = judged(candidate="fal", control="sparse_optimizer")
    found = [*rows(control=0.75), ledger_row("fal", 2, 0.8)]
    blessing = decide("daily", found, pointer("sparse_optimizer", "s-1"), trials=[other, back])
    assert released(blessing) == [("return", "baseline", "baseline-2")]
    assert "sparse_optimizer turned out worse: so it is" in blessing.releases[0].reasons[0]


def test_promoted_candidate_is_refreshed_from_its_own_arm():
    blessing = decide("daily", rows(candidate=0.71), pointer("sparse_optimizer", "sparse_optimizer-1"))
    assert released(blessing) == [("refresh", "sparse_optimizer", "sparse_optimizer-2")]


def test_verdict_stands_after_its_model_was_published(small_config, tmp_path):
    """A run that is killed after publishing is run again; the gate must not judge the model against itself."""
    store = Store(str(tmp_path))
    for row in rows(candidate=0.71):
        write_row(store, row)
    write_trial(store, trial())
    write_record(store.pointer("CURRENT"), pointer())
    values = small_config.model_dump(mode="json") | {"gate": CONFIG.model_dump(mode="json")}
    first = judge_day(store.root, ResolvedConfig("", values), "daily", DAY)
    write_record(store.publication("daily", DAY), Publication(pipeline="daily", event_date=DAY, versions=()))
    write_record(store.pointer("CURRENT"), pointer("sparse_optimizer", "sparse_optimizer-2"))
    values["gate"] |= {"min_gain_percent": 50.0}
    again = judge_day(store.root, ResolvedConfig("", values), "daily", DAY)
    assert first == again == read_blessing(store, "daily", DAY)
    assert released(first)[0][0] == "promote"


def test_refresh_needs_positives_on_the_day_itself():
    """Positives of earlier days say nothing of a day on which conversions stopped coming in."""
    few = [row for row in rows() if row.event_date != DAY]
    few += [ledger_row(arm, 2, 0.7, positives=9) for arm in ("baseline", "sparse_optimizer")]
    few.append(ledger_row("served", 2, 0.7, positives=9, checkpoint="baseline-1"))
    blessing = decide("daily", few, pointer(), CONFIG)
    assert blessing.releases == () and "9 positives, gate.min_day_positives = 10" in "; ".join(blessing.withheld)


def test_failed_candidate_does_not_stop_the_refresh_of_production():
    scored = [row for row in rows() if row.arm != "sparse_optimizer" or row.event_date != DAY]
    excluded = frozenset({"sparse_optimizer"})
    blessing = decide("daily", scored, pointer(), trials=[judged()], notes=("it failed",), excluded=excluded)
    assert released(blessing) == [("refresh", "baseline", "baseline-2")]
    assert blessing.reasons[0] == "it failed"
