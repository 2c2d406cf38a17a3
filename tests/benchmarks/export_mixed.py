"""Plain INT4 against INT4 with frequent rows in INT8, on one table that is looked up by Zipf's law; one figure a line.

Rows are Gaussian, dim 32, with a scale and a bias a row. The frequent rows are those of one draw of look-ups, and the
error, squared over squares, is weighted by another. Beside them INT4 with two scales a row. Bytes are of float16's.
"""

from __future__ import annotations

import statistics
import time

import numpy as np
import torch

from components.export.look_up_counts import most_frequent
from components.export.served_ranker import RowsToVectors
from components.features.feature_list import FeatureConfig
from components.version.packed_tables import PackedTables
from components.version.table_packing import bytes_of, pack_tables

NUM_ROWS, DIM, NUM_LOOK_UPS, EXPONENT = 200_000, 32, 5_000_000, 1.0
SHARES = (0.01, 0.1, 0.3)
TIMED_IDS, ROUNDS = 20_000, 31
FEATURES = FeatureConfig.parse(
    {
        "categorical": [{"name": "item_id", "num_rows": NUM_ROWS}],
        "sequence": {"length": 1, "entities": ["item_id"], "action_types": ["click"]},
        "counts": {"entities": ["item_id"], "action_types": ["click"]},
    },
    "features",
)


def look_ups(generator: np.random.Generator) -> np.ndarray:
    """How often each row is looked up, int64, shape (rows,)."""
    weights = np.arange(1, NUM_ROWS + 1, dtype=np.float64) ** -EXPONENT
    return generator.multinomial(NUM_LOOK_UPS, weights / weights.sum())


def pack(tables: dict[str, np.ndarray], max_error: float, hot: dict[str, np.ndarray]) -> tuple[PackedTables, float]:
    """Tables, and their bytes over those of float16."""
    content, specs = pack_tables(tables, max_error, hot)
    return PackedTables(np.frombuffer(content, np.uint8), specs, FEATURES), bytes_of(specs).ratio


def weighted_error(packed: PackedTables, rows: np.ndarray, counts: np.ndarray) -> float:
    """Squared error over squares, each row as often as it is looked up, as the ranker's graph decodes it."""
    found = packed.look_up(FEATURES.categorical_tables, np.arange(NUM_ROWS)[:, None])
    vectors = RowsToVectors([0] * found.shape[1], packed.layout)(torch.from_numpy(found)).numpy()[:, 0]
    of_rows = (((vectors - rows) ** 2).sum(axis=1), (rows**2).sum(axis=1))
    return float(np.divide(*(counts @ values for values in of_rows)))


def microseconds(packed: PackedTables, ids: np.ndarray) -> float:
    """Median time of a look-up."""
    times = []
    for _ in range(ROUNDS):
        start = time.perf_counter()
        packed.look_up(FEATURES.categorical_tables, ids)
        times.append(time.perf_counter() - start)
    return statistics.median(times) * 1e6


def main() -> None:
    """Print bytes, errors and times."""
    generator = np.random.default_rng(0)
    tables = {
        name: generator.normal(scale=0.05, size=(rows, DIM)).astype(np.float32)
        for name, rows in FEATURES.tables.items()
    }
    trained, served = look_ups(generator), look_ups(generator)
    ids = np.repeat(np.arange(NUM_ROWS), served)[generator.integers(NUM_LOOK_UPS, size=TIMED_IDS)][:, None]
    ways = {"plain": (1.0, 0.0), "two_scales": (0.0, 0.0), **{f"share_{share}": (1.0, share) for share in SHARES}}
    for name, (max_error, share) in ways.items():
        hot = {"item_id": most_frequent(trained, share)}
        packed, ratio = pack(tables, max_error, hot)
        print(f"export.mixed.{name}_bytes: {ratio:.3f}")
        print(f"export.mixed.{name}_error: {weighted_error(packed, tables['item_id'], served):.2e}")
        print(f"export.mixed.{name}_look_up_microseconds: {microseconds(packed, ids):.0f}")


if __name__ == "__main__":
    main()
