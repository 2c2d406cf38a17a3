"""The report, looked at in a real browser."""

from __future__ import annotations

import re
import shutil
import subprocess
from datetime import timedelta
from pathlib import Path

import pytest

from components.common import storage
from components.common.config import ResolvedConfig
from components.common.layout import Store
from components.common.ledger import write_row
from components.common.page_script import script_inside
from components.common.records import write_record
from components.common.releases import Blessing, read_blessing
from components.common.trials import Gain, write_trial
from components.features.objectives import DEFAULT_SERVED
from components.gate.run import judge_day
from components.report.facts import collect
from components.report.page import render
from components.report.run import main, write_report
from tests.unit.gate.rows import ledger_row, trial, with_verdict

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
FLAGS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--virtual-time-budget=10000",
]


@pytest.fixture(scope="module")
def facts(trained):
    judge_day(trained.store.root, ResolvedConfig.open(trained.config.write(trained.store)), "batch", trained.scored_day)
    return collect(trained.store, trained.config.dataset, "batch", trained.scored_day)


@pytest.fixture(scope="module")
def page(facts):
    return render(facts, script_inside())


def test_page_needs_nothing_from_elsewhere(page):
    assert not re.search(r"<(script|link|img)[^>]+(src|href)=", page)
    assert len(page) > 1_000_000


def test_page_says_what_happened(page):
    assert "Undecided." in page and "Trial: sparse optimizer against baseline" in page
    assert "1 days are scored, and look 1 of 27 is after 2" in page
    for text in (
        "The ledger",
        "AUC on unseen days",
        "Loss per objective",
        "No row is in quarantine",
        "Ids without a row",
    ):
        assert text in page


def test_text_from_data_is_escaped(facts):
    hostile = facts.blessing.model_copy(update={"notes": ("<script>alert(1)</script>",)})
    page = render(type(facts)(**{**vars(facts), "blessing": hostile}), "")
    assert "<script>alert(1)" not in page and "&lt;script&gt;alert(1)" in page


@pytest.fixture
def judged(trained, tmp_path):
    """A store of its own with a verdict on a run that is not finished."""
    store, day = Store(str(tmp_path)), trained.scored_day
    write_row(store, ledger_row("baseline", 12))
    tried = trial(first_day=day, looks=(1, 2), evidence="confident")
    gain = Gain(percent=0.5, low=0.1, high=0.9)
    facts = {"gain": gain, "gain_by_objective": dict.fromkeys(DEFAULT_SERVED, gain), "days": (day,)}
    looked = {"look": 1, "num_looks": 2, "boundary": (0.4, 0.2), "reasons": ("better",)}
    tried = with_verdict(tried, day, "blessed", **facts, **looked)
    write_trial(store, tried)
    blessing = Blessing(
        pipeline="daily",
        event_date=day,
        production="baseline",
        verdicts=tried.verdicts,
        notes=("good",),
        ledger_digest="",
    )
    write_record(store.blessing("daily", day), blessing)
    return store, blessing, trained.config.write(store)


def test_page_shows_as_many_days_as_are_kept(page, trained):
    def shown(num_days):
        return collect(trained.store, trained.config.dataset, "batch", trained.scored_day, num_days)

    assert len(shown(None).volumes) > 3 and shown(None).volumes[-1].day > trained.scored_day
    few = shown(2)
    assert min(volume.day for volume in few.volumes) == trained.scored_day - timedelta(days=1)
    assert few.ledger == shown(None).ledger and few.curves["baseline"], "the batch's end is a day of these"
    assert not shown(1).curves


def test_drawing_a_page_finishes_no_run(judged, trained):
    store, blessing, _ = judged
    write_report(store.root, trained.config.dataset, "daily", trained.scored_day)
    assert store.finished_days("daily") == []
    assert read_blessing(store, "daily", trained.scored_day) == blessing


def test_pages_of_runs_share_one_script_and_the_newest_stands_alone(judged, trained):
    store, *_ = judged
    returned = write_report(store.root, trained.config.dataset, "daily", trained.scored_day)
    of_run, newest = (Path(uri) for uri in (store.report(f"daily-{trained.scored_day}"), store.newest_report()))
    (asked,) = re.findall(r'<script src="([^"]+)"></script>', of_run.read_text())
    assert (of_run.parent / asked).stat().st_size > 1_000_000 > 3 * of_run.stat().st_size
    assert (
        returned
        == newest.read_text()
        == of_run.read_text().replace(f'<script src="{asked}"></script>', script_inside())
    )


@pytest.mark.parametrize("drawn", [True, False])
def test_run_is_finished_with_a_page_or_without(judged, trained, monkeypatch, capsys, drawn):
    store, _, config_uri = judged
    if not drawn:
        monkeypatch.setattr("components.report.run.render", lambda facts, script: 1 / 0)
    page, outcome = main(store.root, config_uri, "daily", str(trained.scored_day))
    assert store.finished_days("daily") == [trained.scored_day]
    assert outcome.blessed and outcome.reasons == ("good", "sparse_optimizer is blessed: better")
    assert ("has no report: ZeroDivisionError" in page) is not drawn
    assert ("ALARM: there is no report: ZeroDivisionError" in capsys.readouterr().out) is not drawn


def test_run_is_finished_if_nothing_can_be_deleted(judged, trained, capsys):
    """What is in use cannot be told from a pointer that is damaged: everything stays, and it is said."""
    store, _, config_uri = judged
    storage.write_bytes(store.finished_run("batch", trained.scored_day), b"{}")
    storage.write_bytes(store.pointer("CURRENT"), b"{")
    main(store.root, config_uri, "daily", str(trained.scored_day))
    assert store.finished_days("daily") == [trained.scored_day]
    assert "ALARM: what retention no longer keeps is not deleted: " in capsys.readouterr().out


@pytest.mark.skipif(CHROMIUM is None, reason="chromium is not installed")
def test_browser_draws_every_figure_without_an_error(page, tmp_path):
    path = tmp_path / "report.html"
    path.write_text(page)
    command = [str(CHROMIUM), *FLAGS, f"--user-data-dir={tmp_path / 'profile'}", "--enable-logging=stderr"]
    found = subprocess.run(
        [*command, "--dump-dom", path.as_uri()], capture_output=True, text=True, timeout=120, check=False
    )
    assert found.returncode == 0, found.stderr[-2000:]
    assert not re.search(r"CONSOLE.*(Uncaught|Error)", found.stderr), found.stderr[-2000:]
    drawn = re.findall(r'<div id="figure-(\w+)" class="plotly-graph-div js-plotly-plot"', found.stdout)
    assert drawn == re.findall(r'<div id="figure-(\w+)"', page)
    assert {"ledger", "losses", "volumes", "calibration"} <= set(drawn)
    assert found.stdout.count('class="main-svg"') >= 2 * len(drawn)
