"""The worked examples in docs/examples: from files to a published version, whose answers are what was judged."""

from __future__ import annotations

import asyncio
from datetime import date
from pathlib import Path

import numpy as np
import pytest

from cli.log_check import findings
from cli.log_facts import look_at_logs
from cli.logged_requests import logged_requests
from components.common.layout import Store
from components.common.releases import read_blessing, read_pointer
from components.features.examples import EVALUATION, read_examples
from components.features.objectives import OBJECTIVE_NAMES
from components.ranker.checkpoint import TrainedRanker
from components.ranker.dataset import tensors_of
from components.serve.config import RankerTierConfig
from components.serve.ranker_tier import RankerTier
from components.serve.tensors import request_tensors
from components.version.version import Version
from docs.examples.make_logs import SHAPES, make_logs
from pipelines.config import RunConfig, load_config
from pipelines.local import run_schedule
from tests.conftest import write_config
from tests.unit.export.served import take_tables

CLICK = OBJECTIVE_NAMES.index("click")
SCORED = date(2014, 10, 25)


def small(shape: str, folder: Path) -> RunConfig:
    """A worked example on fewer days and rows, under a gate that lets anything through."""
    uri = str(make_logs(shape, folder, num_days=6, rows_a_day=500))
    changes = {
        "extends": str(Path("docs/examples", f"{shape}_like.yaml").absolute()),
        "source": {"impressions": {"uri": uri}, "actions": {"uri": uri}},
        "schedule": {"num_batch_days": 2},
        "train": {"num_threads": 1},
        "evaluation": {"num_replicates": 20, "logistic_regression": False},
        "gate": {"min_auc": 0.0, "min_positives": 5, "calibration_sigmas": 20.0},
        "export": {"max_auc_change_percent": 100.0, "max_mean_change": 1.0},
    }
    return load_config(str(write_config(folder / "small.yaml", changes)))


def judged(store: Store, version: Version) -> np.ndarray:
    """What the evaluator makes of the scored day's examples on tables as the version has them, shape (n,)."""
    ranker = TrainedRanker.load(store, "baseline", version.manifest.lineage.trained_through)
    vectors = take_tables(ranker.model, version)
    table, _ = read_examples(store, EVALUATION, SCORED)
    return ranker.predict(tensors_of(table, ranker.features, True, ranker.indexes, vectors), 512)[:, CLICK]


@pytest.mark.parametrize("shape", [*SHAPES])
def test_files_become_a_version_that_answers_as_it_was_judged(tmp_path, shape):
    config, store = small(shape, tmp_path), Store(str(tmp_path / "store"))
    told = findings(config, look_at_logs(config, config.source))
    assert [one.text for one in told if one.level == "stops"] == []
    list(run_schedule(config, store.root, date(2014, 11, 1), 0))
    pointer = read_pointer(store)
    assert pointer is not None, read_blessing(store, "batch", SCORED)
    version = Version.published(store, pointer.version)
    tier, expected = RankerTier(RankerTierConfig(store_uri=store.root)), judged(store, version)
    tier.load()
    logged, compared = logged_requests(store, SCORED, version.contract()), 0
    for one, _ in zip(logged, range(50), strict=False):
        ranking = asyncio.run(tier.rank(request_tensors(one.request)))
        assert np.abs(ranking.probabilities["click"] - expected[one.rows]).max() <= 1e-5
        compared += 1
    assert compared == 50 and np.ptp(expected) > 0.01
