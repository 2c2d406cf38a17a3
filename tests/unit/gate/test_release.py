from datetime import date

import pytest

from components.common.layout import Store
from components.common.ledger import append_row
from components.common.release import Pointer, read_blessing, write_record
from components.gate.config import GateConfig
from components.gate.release import decide_release
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


def test_first_model_is_the_control_if_it_passes_the_floors():
    blessing = decide_release("batch", [ledger_row("control", 2)], DAY, None, CONFIG)
    assert (blessing.action, blessing.arm, blessing.checkpoint_digest) == ("first", "control", "control-2")
    assert not blessing.blessed


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        (ledger_row("control", 2, auc=0.55), "at least 0.6"),
        (ledger_row("control", 2, auc=None), "undefined"),
        (ledger_row("control", 2, calibration=3.0), "calibration"),
        (ledger_row("control", 2, positives=3), "positives"),
        (ledger_row("candidate", 2), "not scored"),
    ],
)
def test_first_model_fails_closed(row, reason):
    blessing = decide_release("batch", [row], DAY, None, CONFIG)
    assert blessing.action == "none" and blessing.checkpoint_digest == ""
    assert reason in "; ".join(blessing.action_reasons)


def test_fresh_checkpoint_replaces_the_served_one():
    blessing = decide_release("daily", rows(), DAY, pointer(), CONFIG)
    assert (blessing.action, blessing.checkpoint_digest) == ("refresh", "control-2")


def test_refresh_is_refused_when_the_fresh_one_is_worse_or_unknown():
    worse = decide_release("daily", rows(candidate=0.69, control=0.69), DAY, pointer(), CONFIG)
    assert worse.action == "none" and "falls from 0.7000 to 0.6900" in "; ".join(worse.action_reasons)
    unscored = decide_release("daily", rows()[:-1], DAY, pointer(), CONFIG)
    assert unscored.action == "none"


def test_served_checkpoint_is_not_published_again():
    blessing = decide_release("daily", rows(), DAY, pointer(checkpoint="control-2"), CONFIG)
    assert blessing.action == "none" and "served already" in blessing.action_reasons[0]


@pytest.mark.parametrize("on_blessing", ["promote", "experiment"])
def test_blessed_candidate_goes_where_the_configuration_says(on_blessing):
    config = CONFIG.model_copy(update={"on_blessing": on_blessing})
    blessing = decide_release("daily", rows(candidate=0.71), DAY, pointer(), config)
    assert blessing.blessed
    assert (blessing.action, blessing.checkpoint_digest) == (on_blessing, "candidate-2")


def test_promoted_candidate_is_refreshed_from_its_own_arm():
    blessing = decide_release("daily", rows(candidate=0.71), DAY, pointer("candidate", "candidate-1"), CONFIG)
    assert (blessing.action, blessing.checkpoint_digest) == ("refresh", "candidate-2")


def test_verdict_stands_after_its_model_was_published(tmp_path):
    """A run that is killed after publishing is run again; the gate must not judge the model against itself."""
    store = Store(str(tmp_path))
    for row in rows(candidate=0.71):
        append_row(store, row)
    write_record(store.pointer("CURRENT"), pointer())
    first = judge_day(store.root, CONFIG, "daily", DAY)
    write_record(store.pointer("CURRENT"), pointer("candidate", "candidate-2"))
    again = judge_day(store.root, CONFIG, "daily", DAY)
    assert first == again == read_blessing(store, "daily", DAY)
    assert again.action == "promote"
