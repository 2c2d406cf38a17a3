"""What one table of many exact ids takes, and ten times as many by arithmetic; one figure a line.

`python -m tests.benchmarks.large_table [ids]`; 12 million by default, of dim 32, trained by the Sparse Optimizer with
FAL. Needs 2.5 times the checkpoint of memory and disk.
"""

from __future__ import annotations

import sys
import tempfile
import time
from datetime import date
from pathlib import Path

import numpy as np

from components.common import storage
from components.common.digests import digest_bytes
from components.common.lineage import Lineage
from components.features.exact_ids import ExactIds
from components.features.feature_list import FeatureConfig
from components.ranker.vocabularies import write_vocabularies
from components.train.config import TrainConfig
from components.train.training_state import TrainingState, new_state
from components.version.packed_ids import indexes_in, pack_ids
from components.version.packed_tables import PackedTables
from components.version.table_packing import pack_tables
from tests.benchmarks.peak_memory import peak_mb

TABLE, DIM, TIMES = "item_id", 32, 10


def begun(num_ids: int) -> TrainingState:
    """A model that has met so many ids."""
    exact = ExactIds(capacity=num_ids, admit_after=1).model_dump(mode="json")
    features = FeatureConfig.parse({"categorical": [{"name": TABLE, "exact": exact}]}, "features")
    optimizer = {"table_multiplier": 50, "tables": "lazy_adam", "frequency_adaptive": {}}
    values = {"model": {"preset": "tiny", "embedding_dim": DIM}, "optimizer": optimizer}
    day = date(2026, 1, 1)
    lineage = Lineage(
        arm="a", first_day=day, trained_through=day, parent="", step=0, negative_keep_rate=1.0, recipe_digest=""
    )
    state = new_state(features, TrainConfig.parse(values, "train"), lineage)
    ids = np.unique(np.random.default_rng(0).integers(0, 2**63 - 1, num_ids))
    state.meet(day, {TABLE: (ids, np.ones(len(ids), dtype=np.int64))})
    return state


def say(name: str, megabytes: float) -> None:
    """Print a size, and that of so many times the ids."""
    print(f"large_table.{name}_mb: {megabytes:,.0f}; {TIMES} times the ids: {megabytes * TIMES:,.0f}", flush=True)


def main(num_ids: int = 12_000_000) -> None:
    """Print the figures."""
    imports = peak_mb()
    state = begun(num_ids)
    weights = sum(tensor.nbytes for tensor in state.model.state_dict().values())
    beside = sum(tensor.nbytes for tensor in state.optimizer.state_tensors().values())
    known = state.vocabularies[TABLE]
    of_ids = sum(values.nbytes for values in known.state.values()) + known.index.slots.nbytes
    say("training_memory", (weights + beside + of_ids) / 1e6)
    say("training_peak", peak_mb() - imports)
    with tempfile.TemporaryDirectory() as folder:
        started = time.perf_counter()
        written = [*state.of_model.write(folder), *write_vocabularies(folder, state.vocabularies)]
        print(f"large_table.checkpoint_seconds: {time.perf_counter() - started:.1f}", flush=True)
        say("checkpoint", sum(Path(folder, name).stat().st_size for name in written) / 1e6)
    tables, specs = pack_tables({name: rows.numpy() for name, rows in state.model.served_tables().items()}, 1.0)
    ids, of_index = pack_ids(state.indexes)
    say("version", (len(tables) + len(ids)) / 1e6)
    features = state.features
    del state, known
    with tempfile.TemporaryDirectory() as folder:
        for name, content in (("tables", tables), ("ids", ids)):
            storage.write_bytes(storage.join_uri(folder, name), content)
        started = time.perf_counter()
        for name in ("tables", "ids"):
            digest_bytes(storage.read_bytes(storage.join_uri(folder, name)))
        print(f"large_table.digests_seconds: {time.perf_counter() - started:.2f}", flush=True)
        started = time.perf_counter()
        mapped = [storage.map_bytes(storage.join_uri(folder, name)) for name in ("tables", "ids")]
        served = PackedTables(mapped[0], specs, features, indexes_in(mapped[1], of_index, features))
        served.warm()
        print(f"large_table.embedding_tier_start_seconds: {time.perf_counter() - started:.2f}", flush=True)


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
