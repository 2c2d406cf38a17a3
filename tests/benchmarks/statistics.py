"""Statistics of 2 million rows x 80 columns, and Great Expectations on samples; whole processes, one figure a line.

With TFDV_PYTHON set to the Python of an environment with tensorflow-data-validation 1.16.1 (see
tests/golden/tfdv/make.py), its rows per second on an eighth of the rows are measured in the same run.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

FOLDER = Path("build/bench/statistics")
NUM_ROWS, NUM_FILES, NUM_NUMBERS, NUM_IDENTIFIERS = 2_000_000, 8, 60, 20
ROUNDS = 3

_OURS = f"""
from components.common.beam import LOCAL_RUNNER
from data_validation.examples.statistics import write_statistics
files = ["{FOLDER}/%d.parquet" % number for number in range({NUM_FILES})]
identifiers = frozenset("identifier_%d" % number for number in range({NUM_IDENTIFIERS}))
write_statistics({{"all": files}}, "{FOLDER}/out", identifiers, frozenset(), LOCAL_RUNNER)
"""
_EXPECTATIONS = """
from tests.benchmarks.statistics import sample_logs
from data_validation.config import ValidationConfig
from data_validation.logs.expectations import check_logs
from tests.benchmarks.join_logs import DATASET
check_logs(*sample_logs(20_000), DATASET, ValidationConfig())
"""
# The frame in memory is the fastest of its ways: reading Parquet through its Beam pipeline is four times slower.
_TFDV = """
import sys, time, pandas, tensorflow_data_validation as tfdv
frame = pandas.read_parquet(sys.argv[1])
for name in frame.columns:
    if name.startswith("identifier"):
        frame[name] = frame[name].astype(str)
start = time.perf_counter()
tfdv.generate_statistics_from_dataframe(frame)
print("tfdv_rows_per_s", len(frame) / (time.perf_counter() - start))
"""


def make_rows() -> None:
    """Write the Parquet files, once."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    generator, count = np.random.default_rng(1), NUM_ROWS // NUM_FILES
    for number in range(NUM_FILES):
        path = FOLDER / f"{number}.parquet"
        if path.exists():
            continue
        columns = {f"number_{i}": generator.normal(size=count).astype(np.float32) for i in range(NUM_NUMBERS)}
        columns |= {f"identifier_{i}": generator.zipf(1.5, count) % 50_000 for i in range(NUM_IDENTIFIERS)}
        staged = path.with_suffix(".partial")
        pq.write_table(pa.table(columns), staged)
        staged.rename(path)


def sample_logs(count: int) -> tuple[dict, object]:
    """Samples of both logs and volumes of 30 days, as validation hands them to Great Expectations."""
    import pandas as pd

    from tests.benchmarks.join_logs import DATASET

    generator = np.random.default_rng(2)
    samples = {}
    for table in ("impressions", "actions"):
        columns = {column.name: generator.integers(0, 10**9, count) for column in DATASET.columns(table)}
        columns[f"{table[:-1]}_id"] = np.arange(count)
        columns["timestamp"] = pd.to_datetime(np.arange(count), unit="s", utc=True)
        columns |= {"action_type": ["click"] * count, "source": ["onsite"] * count} if table == "actions" else {}
        samples[table] = pd.DataFrame(columns)
    volumes = [
        {"log_name": table, "event_date": f"2026-01-{day:02d}", "rows": count, "quarantined_share": 0.0}
        for table in samples
        for day in range(1, 31)
    ]
    return samples, pd.DataFrame(volumes)


def seconds(*command: str) -> tuple[float, str]:
    """Wall seconds of a process and what it printed."""
    start = time.perf_counter()
    found = subprocess.run(command, check=True, capture_output=True, text=True)
    return time.perf_counter() - start, found.stdout


def main() -> None:
    """Print the figures."""
    make_rows()
    other = os.environ.get("TFDV_PYTHON", "")
    ours, expectations, theirs = [], [], []
    for _ in range(ROUNDS):
        ours.append(NUM_ROWS / seconds(sys.executable, "-W", "ignore", "-c", _OURS)[0])
        expectations.append(seconds(sys.executable, "-W", "ignore", "-c", _EXPECTATIONS)[0])
        if other:
            printed = seconds(other, "-W", "ignore", "-c", _TFDV, str(FOLDER / "0.parquet"))[1]
            theirs.append(float(printed.split("tfdv_rows_per_s")[1]))
    print(f"statistics.rows_per_s: {statistics.median(ours):.0f}")
    if theirs:
        print(f"statistics.speedup_vs_tfdv: {statistics.median(ours) / statistics.median(theirs):.1f}")
    print(f"expectations.seconds: {statistics.median(expectations):.1f}")


if __name__ == "__main__":
    main()
