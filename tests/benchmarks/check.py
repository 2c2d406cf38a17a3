"""What `afterclick init` and `afterclick check` take on ten million impressions, in Parquet and in CSV.

Memory is the command's own at its peak, in units of 10^6 bytes.
"""

from __future__ import annotations

import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import duckdb

NUM_ROWS = int(os.environ.get("AFTERCLICK_CHECK_ROWS", "10000000"))

_LOGS = """
CREATE TABLE shown AS
SELECT range AS impression_id, TIMESTAMP '2026-01-01' + to_microseconds(range * {step}) AS shown_at,
    hash(range) % 1000000 AS user_id, (hash(range + 1) % 100000)::INTEGER AS item_id,
    'c' || (hash(range + 2) % 500) AS campaign_id, (hash(range + 3) % 1000) / 100.0 AS price
FROM range({rows});
CREATE TABLE acted AS
SELECT impression_id AS action_id, shown_at + INTERVAL 20 SECOND AS done_at, user_id, item_id, campaign_id,
    impression_id, if(hash(impression_id + 4) % 5 = 0, 'purchase', 'click') AS action_type
FROM shown WHERE hash(impression_id + 5) % 6 = 0;
"""


def main() -> None:
    """Print the figures."""
    with tempfile.TemporaryDirectory() as folder:
        with duckdb.connect() as connection:
            step = 30 * 86_400_000_000 // NUM_ROWS
            connection.execute(_LOGS.format(step=step, rows=NUM_ROWS))
            for log in ("shown", "acted"):
                for kind in ("parquet", "csv"):
                    connection.execute(f"COPY {log} TO '{folder}/{log}.{kind}'")
        for kind in ("parquet", "csv"):
            config = Path(folder, f"{kind}.yaml")
            logs = ("--impressions", f"{folder}/shown.{kind}", "--actions", f"{folder}/acted.{kind}")
            print(f"init.seconds_{kind}: {_run('init', *logs, '-o', str(config))[0]:.1f}", flush=True)
            seconds, megabytes = _run("check", "-c", str(config))
            print(f"check.seconds_{kind}: {seconds:.1f}")
            print(f"check.peak_mb_{kind}: {megabytes:.0f}", flush=True)


def _run(*arguments: str) -> tuple[float, float]:
    """Seconds and peak memory of a command; of all commands so far the largest peak."""
    started = time.monotonic()
    subprocess.run([sys.executable, "-m", "cli.main", *arguments], check=True, stdout=subprocess.DEVNULL)
    return time.monotonic() - started, resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024 / 1e6


if __name__ == "__main__":
    main()
