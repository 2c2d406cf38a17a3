from datetime import date

import pytest

from components.common.arms import ArmFailure
from components.common.layout import Store
from components.common.ledger import write_row
from components.common.records import write_record
from components.common.releases import Pointer, Publication, read_blessing
from components.gate.config import GateConfig
from components.gate.release_rules import decide_release
from components.gate.run import judge_day
from tests.unit.gate.rows import ledger_row

CONFIG = GateConfig(num_days=2, min_positives=100, on_blessing="promote")
DAY = date(2026, 1, 2)


def pointer(arm="control", checkpoint="control-1"):
    return Pointer(
        version="v", arm=arm, checkpoint_digest=checkpoint, trained_through=date(2025, 12, 31), published_on=DAY
    )


def rows(candidate=0.7, control=0.7, served=0.7):
    found = [ledger_row("control", day, control) for day in (1, 2)]
    found += [ledger_row("candidate", day, candidate) for day in (1, 2)]
    return [*found, ledger_row("served", 2, served, checkpoint="control-1")]


def released(blessing):
    return [(release.action, release.arm, release.checkpoint_digest) for release in blessing.releases]


def test_first_model_is_the_control_if_it_passes_the_floors():
    blessing = decide_release("batch", [ledger_row("control", 2)], DAY, None, CONFIG)
    assert released(blessing) == [("first", "control", "control-2")]
    assert not blessing.blessed


def test_first_model_is_the_best_arm_that_passes():
    better, worse = ledger_row("candidate", 2, auc=0.75), ledger_row("control", 2, auc=0.65)
    assert released(decide_release("batch", [worse, better], DAY, None, CONFIG))[0][:2] == ("first", "candidate")
    uncalibrated = ledger_row("candidate", 2, auc=0.75, calibration=3.0)
    blessing = decide_release("batch", [worse, uncalibrated], DAY, None, CONFIG)
    assert released(blessing)[0][:2] == ("first", "control") and not blessing.withheld
    control_only = CONFIG.model_copy(update={"first": "control"})
    assert released(decide_release("batch", [worse, better], DAY, None, control_only))[0][:2] == ("first", "control")


def test_first_model_counts_positives_over_the_window():
    config = CONFIG.model_copy(update={"num_days": 2, "min_positives": 60})
    blessing = decide_release("batch", [ledger_row("control", 2, positives=40)], DAY, None, config)
    assert "80" not in str(blessing.withheld) and "gate.min_positives = 60" in str(blessing.withheld)
    both = [ledger_row("control", day, positives=40) for day in (1, 2)]
    assert released(decide_release("batch", both, DAY, None, config)) == [("first", "control", "control-2")]
    few = decide_release("batch", [ledger_row("control", 2, positives=20)], DAY, None, config)
    assert "2 such days never have: lower it, or raise gate.num_days" in str(few.withheld)


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        (ledger_row("control", 2, auc=0.55), "at least 0.6"),
        (ledger_row("control", 2, auc=None), "undefined"),
        (ledger_row("control", 2, calibration=3.0), "calibration"),
        (ledger_row("control", 2, positives=3), "positives"),
        (ledger_row("served", 2), "not scored"),
    ],
)
def test_first_model_fails_closed(row, reason):
    blessing = decide_release("batch", [row], DAY, None, CONFIG)
    assert blessing.releases == ()
    assert reason in "; ".join(blessing.withheld)


def test_fresh_checkpoint_replaces_the_served_one():
    blessing = decide_release("daily", rows(), DAY, pointer(), CONFIG)
    assert released(blessing) == [("refresh", "control", "control-2")]


@pytest.mark.parametrize(
    ("found", "reason"),
    [
        (rows(candidate=0.69, control=0.69), "falls from 0.7000 to 0.6900"),
        (rows()[:-1], "not both scored"),
        (rows()[:3] + [ledger_row("served", 2, None)], "no AUC"),
        ([*rows()[:1], ledger_row("control", 2, calibration=2.0), *rows()[2:]], "calibration"),
        (
            [ledger_row(arm, day, positives=3) for arm in ("control", "candidate") for day in (1, 2)]
            + [ledger_row("served", 2, positives=3)],
            "positives",
        ),
    ],
)
def test_refresh_fails_closed(found, reason):
    blessing = decide_release("daily", found, DAY, pointer(), CONFIG)
    assert blessing.releases == ()
    assert reason in "; ".join(blessing.withheld)


def test_served_checkpoint_is_not_published_again():
    blessing = decide_release("daily", rows(), DAY, pointer(checkpoint="control-2"), CONFIG)
    assert blessing.releases == () and "served already" in blessing.withheld[0]


def test_blessed_candidate_is_promoted_if_the_configuration_says_so():
    blessing = decide_release("daily", rows(candidate=0.71), DAY, pointer(), CONFIG)
    assert blessing.blessed
    assert released(blessing) == [("promote", "candidate", "candidate-2")]


def test_experiment_does_not_keep_production_from_being_refreshed():
    config = CONFIG.model_copy(update={"on_blessing": "experiment"})
    blessing = decide_release("daily", rows(candidate=0.71), DAY, pointer(), config)
    assert released(blessing) == [("experiment", "candidate", "candidate-2"), ("refresh", "control", "control-2")]
    assert [release.channel for release in blessing.releases] == ["EXPERIMENT", "CURRENT"]


def test_blessed_candidate_that_fails_on_the_newest_day_is_withheld():
    found = [ledger_row("control", day) for day in (1, 2)] + [ledger_row("served", 2, checkpoint="control-1")]
    found += [ledger_row("candidate", 1, 0.9), ledger_row("candidate", 2, 0.6)]
    blessing = decide_release("daily", found, DAY, pointer(), CONFIG)
    assert blessing.blessed
    assert released(blessing) == [("refresh", "control", "control-2")]
    assert "promote of candidate: checkout_given_click falls" in blessing.withheld[0]


def test_promoted_candidate_is_refreshed_from_its_own_arm():
    blessing = decide_release("daily", rows(candidate=0.71), DAY, pointer("candidate", "candidate-1"), CONFIG)
    assert released(blessing) == [("refresh", "candidate", "candidate-2")]


def test_verdict_stands_after_its_model_was_published(tmp_path):
    """A run that is killed after publishing is run again; the gate must not judge the model against itself."""
    store = Store(str(tmp_path))
    for row in rows(candidate=0.71):
        write_row(store, row)
    write_record(store.pointer("CURRENT"), pointer())
    first = judge_day(store.root, CONFIG, "daily", DAY)
    write_record(store.publication("daily", DAY), Publication(pipeline="daily", event_date=DAY, versions=()))
    write_record(store.pointer("CURRENT"), pointer("candidate", "candidate-2"))
    stricter = CONFIG.model_copy(update={"min_gain_percent": 50.0})
    assert first == judge_day(store.root, stricter, "daily", DAY) == read_blessing(store, "daily", DAY)
    assert released(first)[0][0] == "promote"


def test_refresh_needs_positives_on_the_day_itself():
    """Positives of earlier days say nothing of a day on which conversions stopped coming in."""
    few = [row for row in rows() if row.event_date != DAY]
    few += [ledger_row(arm, 2, 0.7, positives=9) for arm in ("control", "candidate")]
    few.append(ledger_row("served", 2, 0.7, positives=9, checkpoint="control-1"))
    blessing = decide_release("daily", few, DAY, pointer(), CONFIG)
    assert blessing.releases == () and "9 positives, gate.min_day_positives = 10" in "; ".join(blessing.withheld)


def test_failed_candidate_does_not_stop_the_refresh_of_production():
    failure = ArmFailure(arm="candidate", day=DAY, reason="the loss at step 3 is not finite")
    scored = [row for row in rows() if row.arm != "candidate" or row.event_date != DAY]
    blessing = decide_release("daily", scored, DAY, pointer(), CONFIG, {"candidate": failure})
    assert released(blessing) == [("refresh", "control", "control-2")]
    assert not blessing.blessed
    assert blessing.reasons[0] == "candidate failed on 2026-01-02: the loss at step 3 is not finite"
