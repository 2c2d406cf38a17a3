"""What judging five million rows takes, and what comparing files with their digests adds to reading them.

One figure a line. Memory is that of the process, in units of 10^6 bytes, at its peak: before the rows are there, before
they are scored, and after.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Callable

import numpy as np
import pyarrow as pa

from components.common import parquet_files, storage
from components.evaluate.config import EvaluationConfig
from components.evaluate.metrics import score_objective
from tests.benchmarks.peak_memory import peak_mb

NUM_ROWS, NUM_USERS, ROUNDS = 5_000_000, 500_000, 7
FILE_ROWS, NUM_IDENTIFIERS, NUM_NUMBERS = 250_000, 20, 40


def main() -> None:
    """Print the figures."""
    print(f"evaluate.import_mb: {peak_mb():.0f}")
    random = np.random.default_rng(0)
    predictions = random.beta(1, 20, NUM_ROWS)
    labels = random.binomial(1, predictions).astype(np.int8)
    predictions, users = predictions.astype(np.float32), random.integers(0, NUM_USERS, NUM_ROWS, dtype=np.uint64)
    print(f"evaluate.rows_mb_5m: {peak_mb():.0f}", flush=True)
    started = time.monotonic()
    score_objective(labels, predictions, users, EvaluationConfig().num_replicates)
    print(f"evaluate.replicates: {EvaluationConfig().num_replicates}")
    print(f"evaluate.seconds_5m: {time.monotonic() - started:.1f}")
    print(f"evaluate.peak_mb_5m: {peak_mb():.0f}")
    _verification(random)


def _verification(random: np.random.Generator) -> None:
    """A file of examples as the join writes them: few distinct ids, and counts that are often equal."""
    identifiers = {f"id_{n}": random.zipf(1.3, FILE_ROWS).astype(np.int64) for n in range(NUM_IDENTIFIERS)}
    numbers = {f"number_{n}": random.poisson(3, FILE_ROWS).astype(np.float32) for n in range(NUM_NUMBERS)}
    with tempfile.TemporaryDirectory() as folder:
        uri = storage.join_uri(folder, "part-00000.parquet")
        parquet_files.write_parquet(uri, pa.table({**identifiers, **numbers}))
        num_bytes, _ = storage.measure(uri)
        compared, read = [], []
        for _ in range(ROUNDS):
            compared.append(_seconds(lambda: storage.measure(uri)))
            read.append(_seconds(lambda: parquet_files.read_parquet(uri)))
    print(f"verify.file_mb: {num_bytes / 1e6:.1f}")
    print(f"verify.seconds_per_gb: {statistics.median(compared) / num_bytes * 1e9:.2f}")
    print(f"verify.share_of_reading: {statistics.median(compared) / statistics.median(read):.2f}")


def _seconds(call: Callable[[], object]) -> float:
    started = time.monotonic()
    call()
    return time.monotonic() - started


if __name__ == "__main__":
    main()
