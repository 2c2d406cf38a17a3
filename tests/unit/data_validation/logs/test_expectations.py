"""Great Expectations' findings and their page."""

from __future__ import annotations

import re

import numpy as np
import pandas as pd
import pytest

from data_validation.config import ValidationConfig
from data_validation.logs.expectations import check_logs
from tests.unit.join.logs import DATASET


def sample(name, count, **changes):
    columns = {
        f"{name[:-1]}_id": np.arange(count),
        "timestamp": pd.to_datetime(np.arange(count), unit="s", utc=True),
        "user_id": np.arange(count) % 7,
        "item_id": np.arange(count) % 3,
        "action_type": ["click"] * count,
        "source": ["onsite"] * count,
    }
    return pd.DataFrame({**columns, **changes})


def volumes(rows=100):
    return pd.DataFrame(
        [
            {"log_name": log_name, "event_date": "2026-01-01", "rows": rows, "quarantined_share": 0.0}
            for log_name in ("impressions", "actions")
        ]
    )


@pytest.fixture(scope="module")
def failed():
    bad = ["<script>alert(1)</script>"] * 5 + ["click"] * 95
    samples = {"impressions": sample("impressions", 100), "actions": sample("actions", 100, action_type=bad)}
    return check_logs(samples, volumes(), DATASET, ValidationConfig())


def test_unmet_expectation_is_named_with_what_was_seen(failed):
    unmet = [item for item in failed[0] if not item.met]
    assert [(item.suite, item.column) for item in unmet] == [("actions", "action_type")]
    assert "5 unexpected of 100" in unmet[0].observed


def test_page_shows_every_suite_and_loads_nothing(failed):
    page = failed[1]
    for title in ("impressions", "actions", "days of impressions", "days of actions"):
        assert f"> {title}</h2>" in page
    assert not re.search(r"""(src|href)=["']https?:""", page) and "@import" not in page
    assert "url(http" not in page


def test_values_of_the_logs_are_escaped(failed):
    assert "<script" not in failed[1]
    assert "&lt;script&gt;" in failed[1]


def test_day_below_the_least_volume_is_named():
    samples = {name: sample(name, 10) for name in ("impressions", "actions")}
    found, _ = check_logs(samples, volumes(rows=0), DATASET, ValidationConfig())
    assert any("on 2026-01-01" in item.observed for item in found if not item.met)
