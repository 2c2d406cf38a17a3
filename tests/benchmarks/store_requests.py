"""Requests that a store on S3 gets from the steps of a daily run; prints `name: value` lines."""

from __future__ import annotations

import os
import sys
import tempfile
import time
from collections import Counter
from datetime import timedelta
from pathlib import Path

from components.common.arms import ArmList
from components.common.config import ResolvedConfig
from components.common.layout import Store
from components.common.releases import BATCH, DAILY
from components.schedule.run import pick_batch, pick_day
from pipelines.config import load_config
from pipelines.local import run_pipeline
from tests.conftest import small_values, write_config
from tests.s3 import BUCKET, S3Server, s3_server

_CONFIG = {"min_gain_percent": -100.0, "max_objective_loss_percent": 100.0}


def main() -> None:
    """A batch, a day that publishes nothing, and a day that promotes an arm; 1,000 impressions a day."""
    values = small_values()
    values["source"]["impressions_per_day"] = 1000
    values["gate"] |= _CONFIG
    with tempfile.TemporaryDirectory() as folder, s3_server() as server:
        os.environ |= server.environment
        os.chdir(folder)
        config = load_config(str(write_config(Path(folder, "small.yaml"), values)))
        store = Store(f"s3://{BUCKET}/store")
        for name, pipeline in (("batch", BATCH), ("daily_run", DAILY), ("publishing_daily_run", DAILY)):
            due = (store, config.dataset, config.schedule, config.source.last_day)
            arms = ArmList.of(store, ResolvedConfig.open(config.write(store)))
            day = (pick_batch(*due) if pipeline == BATCH else pick_day(*due, arms)).event_date
            server.restart_counts()
            started = time.monotonic()
            outcome = run_pipeline(pipeline, config, store.root, config.dataset.mature_on(day) + timedelta(days=1))
            assert outcome is not None and bool(outcome.published) == (name != "daily_run"), outcome
            _print(name, server, time.monotonic() - started)


def _print(name: str, server: S3Server, seconds: float) -> None:
    counts = server.counts()
    by_status = Counter({"requests": sum(counts.values())})
    for request, count in counts.items():
        by_status["not_found" if request.split()[1] == "404" else "found"] += count
    print(f"store.requests_per_{name}: {by_status['requests']}")
    print(f"store.not_found_per_{name}: {by_status['not_found']}")
    print(f"store.seconds_per_{name}: {seconds:.1f}", flush=True)


if __name__ == "__main__":
    sys.exit(main())
