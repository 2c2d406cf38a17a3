"""From files to a published model with `init`, `check` and `run`, and what tiny logs with one fault each are told."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from components.common.layout import Store
from components.common.ledger import read_ledger
from components.common.releases import read_pointer
from components.features.examples import EVALUATION, read_examples
from tests.pipelines import shapes
from tests.pipelines.test_end_to_end import afterclick

TINY = Path("../shared/faults/tiny")
needs_tiny = pytest.mark.skipif(
    not TINY.exists(), reason="the scripts that make tiny logs are not beside the repository"
)


@pytest.mark.parametrize(
    ("shape", "served"),
    [
        (shapes.click_log, ["click"]),
        (shapes.event_stream, ["checkout_given_view"]),
        (shapes.install_log, ["checkout_given_view"]),
    ],
    ids=["click log", "event stream", "install log"],
)
def test_shape_is_published_without_a_converter(tmp_path, shape: Callable[[Path], tuple[str, str]], served):
    impressions, actions = shape(tmp_path)
    config, store = str(tmp_path / "own.yaml"), Store(str(tmp_path / "store"))
    named = ("--actions", actions) if actions else ()
    afterclick("init", "--impressions", impressions, *named, "-o", config)
    printed = afterclick("check", "-c", config)
    assert "check.stops: 0" in printed and "stops  " not in printed
    printed = afterclick("run", "-c", config, "-s", store.root, "--max-days", "1")
    pointer = read_pointer(store)
    assert pointer is not None, printed
    assert "have no row" not in printed and "heads without any positive are left out" in printed
    row = next(row for row in read_ledger(store) if row.arm == pointer.arm)
    assert set(served) <= set(row.scores) and "good_click" not in row.scores, "heads without data are left out"
    assert all(row.scores[name].auc > 0.6 for name in served)
    rows = afterclick("predict", "-s", store.root, "--limit", "1", "--json").splitlines()
    assert set(served) <= set(json.loads(rows[-1])) and "good_click" not in rows[-1]


def tiny(case: str, tmp_path: Path, **replaced: str) -> str:
    """A tiny case's logs, and the configuration that reads them."""
    subprocess.run([sys.executable, TINY / "make.py", case.replace("_changed", ""), tmp_path / case], check=True)
    text = (TINY / f"{case}.yaml").read_text().replace("LOGS", str(tmp_path))
    for old, new in replaced.items():
        text = text.replace(old, new)
    path = tmp_path / f"{case}.yaml"
    path.write_text(text)
    return str(path)


def run(config: str, store: str, as_of: str = "2024-03-08", expect: int = 0) -> str:
    return afterclick("run", "-c", config, "-s", store, "--as-of", as_of, "--max-days", "0", expect=expect)


@needs_tiny
def test_conversions_at_the_moment_of_their_impression_count(tmp_path):
    config = tiny("same_moment", tmp_path)
    run(config, str(tmp_path / "store"))
    day = Store(str(tmp_path / "store")).example_days(EVALUATION)[0]
    examples = read_examples(Store(str(tmp_path / "store")), EVALUATION, day)[0]
    actions = pq.read_table(tmp_path / "same_moment" / "actions" / f"event_date={day}" / "0.parquet")
    checkouts = pc.sum(pc.equal(actions["action_type"], "checkout")).as_py()
    assert sum(examples["checkouts"].to_pylist()) == checkouts > 50


@needs_tiny
@pytest.mark.parametrize(
    ("case", "said"),
    [
        (
            "purchase",
            r"action_type is 'purchase' (78); say what it is: source.actions.action_types: {purchase: checkout}",
        ),
        ("per_day_ids", "have an impression_id that their user had on the day before, too"),
        ("no_source", "say what all actions are: source: {constant: onsite}"),
        ("seconds", "such as '1709324160', which is a number without a unit; say the unit"),
    ],
)
def test_fault_is_named_before_anything_is_copied(tmp_path, case, said):
    config, store = tiny(case, tmp_path), tmp_path / "store"
    for command in (("check", "-c", config), ("run", "-c", config, "-s", str(store))):
        printed = afterclick(*command, expect=1)
        assert said in printed and "Traceback" not in printed
    assert not (store / "logs").exists()


@needs_tiny
@pytest.mark.parametrize(
    ("case", "old", "new"),
    [
        ("purchase", "purchase/actions}", "purchase/actions, action_types: {purchase: checkout}}"),
        ("no_source", "no_source/actions}", "no_source/actions, columns: {source: {constant: onsite}}}"),
        ("seconds", "seconds/impressions}", "seconds/impressions, columns: {timestamp: {column: timestamp, unit: s}}}"),
        ("float_user", "first_day: 2024-03-01", "first_day: 2024-03-01\n  users_without_id: drop"),
        ("closed_day", "name: tiny", "name: tiny"),
    ],
)
def test_named_option_is_all_that_it_takes(tmp_path, case, old, new):
    config = tiny(case, tmp_path, **{old: new})
    printed = afterclick("check", "-c", config)
    assert "check.stops: 0" in printed and "set aside" not in printed
    assert ("rows on closed days, which are read" in printed) == (case == "closed_day")


@needs_tiny
def test_changed_configuration_of_a_store_is_named(tmp_path):
    config, store = tiny("ok", tmp_path), str(tmp_path / "store")
    assert "run.published: nothing" not in run(config, store)
    changed = (TINY / "ok_changed.yaml").read_text().replace("LOGS", str(tmp_path))
    Path(config).write_text(changed)
    printed = run(config, store, expect=1)
    assert "were trained by another recipe: arms.control.batch_size: 32, was 64" in printed


@needs_tiny
def test_changed_thresholds_judge_the_last_day_again(tmp_path):
    """And logs that end are no error: the run says so."""
    strict, store = {"min_auc: 0.0": "min_auc: 0.99"}, str(tmp_path / "store")
    printed = run(tiny("ok", tmp_path, **strict), store)
    assert "run.published: nothing: first of c" in printed and "at least 0.99 is needed" in printed
    config = tiny("ok", tmp_path)
    printed = run(config, store)
    assert "judged again: gate.min_auc: 0.0, was 0.99" in printed
    assert read_pointer(Store(store)) is not None
    printed = afterclick("run", "-c", config, "-s", store, "--as-of", "2030-01-01", "--max-days", "0")
    assert "nothing is due" in printed
    Path(config).write_text(Path(config).read_text().replace("num_batch_days: 2", "num_batch_days: 20"))
    printed = afterclick("run", "-c", config, "-s", str(tmp_path / "other"), expect=1)
    assert "logs end on 2024-03-10: 15 more days are needed" in printed


def test_output_to_a_closed_pipe_is_no_error(tmp_path):
    printed = subprocess.run(
        f"{sys.executable} -m cli.main --help | head -1", shell=True, capture_output=True, text=True, env={**os.environ}
    )
    assert printed.stderr == ""
