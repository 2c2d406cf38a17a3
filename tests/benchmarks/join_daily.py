"""What a day's join costs beside the length of the history that its features reach back to.

Each join is a process of its own: the day before is joined first, unmeasured, as it was the night before.
"""

from __future__ import annotations

import argparse
import shutil
import sys
from datetime import timedelta
from pathlib import Path

from components.common.layout import Store
from tests.benchmarks.join import FOLDER, Measured, measure, median

HISTORIES, ROUNDS = (0, 7, 28, 56), 3
PER_DAY, NUM_DAYS = 200_000, 74


def run_day(store_root: str, history_days: int, before: bool) -> None:
    """Join one day, or the one before it."""
    from components.features.feature_list import FeatureConfig
    from components.join.assemble import JoinJob
    from components.join.config import JoinConfig
    from components.join.run import join_days
    from tests.benchmarks.join_logs import DATASET, FEATURES, FIRST, KEEP_RATE

    day = FIRST + timedelta(days=NUM_DAYS - DATASET.maturity_days - (2 if before else 1))
    as_of = DATASET.mature_on(day) + timedelta(days=1)
    values = FEATURES.model_dump()
    values["counts"]["windows_days"] = sorted({min(7, history_days), history_days})
    values["engagement"]["window_days"] = history_days
    features = FeatureConfig.model_validate(values) if history_days else None
    config = JoinConfig(negative_keep_rate=KEEP_RATE, beam_options=("--runner=FnApiRunner",))
    join_days(store_root, JoinJob(DATASET, features, config, day, day, as_of, as_of))


def compare(store: str, rounds: int) -> None:
    """Run every history in turn, and print the figures."""
    found: dict[int, list[Measured]] = {history: [] for history in HISTORIES}
    module = ["--store", store]
    for _ in range(rounds):
        for history in HISTORIES:
            for name in ("examples", "log_summaries"):
                shutil.rmtree(Path(store, name), ignore_errors=True)
            measure(*module, "--history", str(history), "--before", module=__spec__.name)
            found[history].append(measure(*module, "--history", str(history), module=__spec__.name))
            print(f"  {history} days: {found[history][-1]}", file=sys.stderr, flush=True)
    for history, measured in found.items():
        print(f"join.daily.cpu_seconds_{history}d: {median(measured, 'cpu'):.1f}")
        print(f"join.daily.peak_mb_{history}d: {median(measured, 'peak_mb'):.0f}")
    cpu = {history: median(measured, "cpu") for history, measured in found.items()}
    print(f"join.daily.cpu_ratio_56d: {cpu[56] / cpu[7]:.2f}")
    print(f"join.daily.cpu_ratio_56d_to_no_features: {cpu[56] / cpu[0]:.2f}")


def main() -> None:
    """Orchestrate, or be one of the measured processes."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--store", default=str(FOLDER / "daily"))
    parser.add_argument("--history", type=int)
    parser.add_argument("--before", action="store_true")
    parser.add_argument("--logs", action="store_true")
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    options = parser.parse_args()
    if options.history is not None:
        run_day(options.store, options.history, options.before)
        return
    if options.logs:
        from tests.benchmarks.join_logs import write_logs

        write_logs(Store(options.store), PER_DAY * NUM_DAYS, NUM_DAYS)
        return
    # Not in this process: a child's peak memory begins with that of its parent.
    measure("--store", options.store, "--logs", module=__spec__.name)
    compare(options.store, options.rounds)


if __name__ == "__main__":
    main()
