"""The join against DuckDB: Parquet to Parquet, whole processes, interleaved; prints medians, one figure a line."""

from __future__ import annotations

import argparse
import os
import shutil
import statistics
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from components.common.layout import Store

FOLDER = Path("build/bench/join")
_BEAM = ["--runner=FnApiRunner"]
_TWO_PROCESSES = [*_BEAM, "--direct_running_mode=multi_processing", "--direct_num_workers=2"]


@dataclass(frozen=True)
class Measured:
    """One process: seconds and megabytes."""

    wall: float
    cpu: float
    peak_mb: float


def measure(*arguments: str, module: str = __spec__.name) -> Measured:
    """Run this module, or another, as a process of its own."""
    start = time.perf_counter()
    process = subprocess.Popen([sys.executable, "-W", "ignore", "-m", module, *arguments], stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        raise RuntimeError(f"{arguments}: ended with {status}")
    return Measured(time.perf_counter() - start, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024)


def run_afterclick(store_root: str, full: bool, workers: int) -> None:
    """The product's own join, from clean logs to finished examples."""
    from datetime import timedelta

    from components.common.long_lived import long_lived

    with long_lived():
        from components.join.assemble import JoinJob
        from components.join.config import JoinConfig
        from components.join.run import join_days
        from tests.benchmarks.join_logs import DATASET, FEATURES, FIRST, KEEP_RATE, LAST

    as_of = DATASET.mature_on(LAST) + timedelta(days=1)
    options = _BEAM if workers == 1 else _TWO_PROCESSES
    config = JoinConfig(negative_keep_rate=KEEP_RATE, beam_options=tuple(options))
    join_days(store_root, JoinJob(DATASET, FEATURES if full else None, config, FIRST, LAST, as_of, as_of))


def median(measured: list[Measured], field: str) -> float:
    """The median of one field."""
    return statistics.median(getattr(item, field) for item in measured)


def main() -> None:
    """Orchestrate, or be one of the measured processes."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--engine", choices=("afterclick", "duckdb", "logs"))
    parser.add_argument("--store", default="")
    parser.add_argument("--full", action="store_true")
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--impressions", type=int, default=10_000_000)
    options = parser.parse_args()
    if options.engine == "logs":
        from tests.benchmarks.join_logs import write_logs

        write_logs(Store(options.store), options.impressions)
    elif options.engine == "afterclick":
        for made in ("examples", "log_summaries"):
            shutil.rmtree(f"{options.store}/{made}", ignore_errors=True)
        run_afterclick(options.store, options.full, options.workers)
    elif options.engine == "duckdb":
        from tests.benchmarks.join_duckdb import run

        shutil.rmtree(f"{options.store}/duckdb", ignore_errors=True)
        run(f"{options.store}/clean_logs", f"{options.store}/duckdb", options.full, options.workers)
    else:
        compare(options.rounds, options.impressions)


def compare(rounds: int, impressions: int) -> None:
    """Run every engine in turn, `rounds` times, and print the figures."""
    small, large = (str(FOLDER / str(count)) for count in (impressions // 5, impressions))
    for store, count in ((small, impressions // 5), (large, impressions)):
        measure("--engine", "logs", "--store", store, "--impressions", str(count))
    cases = {
        "duckdb": ["--engine", "duckdb", "--store", large, "--workers", "2"],
        "label": ["--engine", "afterclick", "--store", large],
        "label_2p": ["--engine", "afterclick", "--store", large, "--workers", "2"],
        "label_small": ["--engine", "afterclick", "--store", small],
        "duckdb_full": ["--engine", "duckdb", "--store", large, "--workers", "2", "--full"],
        "full": ["--engine", "afterclick", "--store", large, "--full"],
    }
    found: dict[str, list[Measured]] = {name: [] for name in cases}
    for _ in range(rounds):
        for name, arguments in cases.items():
            found[name].append(measure(*arguments))
            print(f"  {name}: {found[name][-1]}", file=sys.stderr, flush=True)
    duckdb, label, full = found["duckdb"], found["label"], found["full"]
    print(f"join.duckdb.label_cpu_seconds: {median(duckdb, 'cpu'):.1f}")
    print(f"join.duckdb.label_wall_seconds: {median(duckdb, 'wall'):.1f}")
    print(f"join.label.cpu_ratio: {median(label, 'cpu') / median(duckdb, 'cpu'):.2f}")
    print(f"join.label.wall_ratio_2p: {median(found['label_2p'], 'wall') / median(duckdb, 'wall'):.2f}")
    print(f"join.label.peak_mb: {median(label, 'peak_mb'):.0f}")
    print(f"join.full.cpu_ratio: {median(full, 'cpu') / median(found['duckdb_full'], 'cpu'):.2f}")
    print(f"join.full.peak_mb: {median(full, 'peak_mb'):.0f}")
    print(f"join.growth_2_to_10: {median(label, 'wall') / median(found['label_small'], 'wall'):.2f}")


if __name__ == "__main__":
    main()
