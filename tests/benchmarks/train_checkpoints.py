"""Making, writing and loading a model with 8 million rows in one, two and four processes: memory of each, and seconds.

The work and the bytes are the same; what a process needs beside its own rows should not follow the tables.
"""

from __future__ import annotations

import gc
import multiprocessing
import os
import resource
import tempfile
import time
from datetime import date
from functools import partial
from multiprocessing.connection import Connection

import torch

from components.common.layout import Store
from components.common.lineage import Lineage
from components.common.manifests import Step
from components.features.feature_list import FeatureConfig
from components.ranker.checkpoint import find_checkpoint
from components.tables.processes import joined_processes
from components.train.config import TrainConfig
from components.train.training_state import load_state, new_state, write_checkpoint

ROWS, DIM, DAY = 8_000_000, 32, date(2026, 1, 1)
FEATURES = FeatureConfig.parse({"categorical": [{"name": "item_id", "num_rows": ROWS}]}, "features")
RECIPE = TrainConfig.parse(
    {
        "model": {"embedding_dim": DIM, "hidden_sizes": [16]},
        "optimizer": {"tables": "lazy_adam", "frequency_adaptive": {}},
        "execution": {"sharding": {"kinds": ["row_wise"]}},
    },
    "train",
)


def take_part(rank: int, world_size: int, port: int, root: str, found: Connection) -> None:
    """Make, train a step, write, load; send peak memory beyond the imports in bytes, and seconds."""
    place = {"RANK": rank, "WORLD_SIZE": world_size, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    os.environ |= {name: str(value) for name, value in place.items()}
    torch.set_num_threads(1)
    lineage = Lineage(arm="x", first_day=DAY, trained_through=DAY, parent="", step=0, negative_keep_rate=1.0)
    with joined_processes("cpu") as process:
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        state = new_state(FEATURES, RECIPE, lineage, process)
        assert state.optimizer.tables is not None
        # Moments of zeros take no memory before they are written to.
        for values in state.optimizer.tables.row_state.values():
            values.view(torch.int32).fill_(1)
        started = time.monotonic()
        write_checkpoint(Store(root), state, Step("bench").origin(), {}, {})
        written = time.monotonic()
        del state
        gc.collect()
        load_state(Store(root), "x", DAY, process, RECIPE.execution)
        loaded = time.monotonic()
    peak = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024
    found.send((peak, written - started, loaded - written))


def main() -> None:
    """Print the figures."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__name__])
    state_bytes, digests = ROWS * (3 * DIM + 1) * 4, set()
    print(f"train.checkpoint.state_mb: {state_bytes / 2**20:.0f}")
    for world_size in (1, 2, 4):
        with tempfile.TemporaryDirectory() as root:
            ends = [context.Pipe(duplex=False) for _ in range(world_size)]
            work = partial(context.Process, target=take_part)
            parts = [
                work(args=(rank, world_size, 29_400 + world_size, root, ends[rank][1])) for rank in range(world_size)
            ]
            for part in parts:
                part.start()
            peaks, writing, loading = zip(*(receiver.recv() for receiver, _ in ends), strict=True)
            for part in parts:
                part.join()
            checkpoint = find_checkpoint(Store(root), "x", DAY)
            assert checkpoint is not None
            digests.add(checkpoint.content_digest)
        print(f"train.checkpoint.peak_mb_{world_size}p: {max(peaks) / 2**20:.0f}")
        print(f"train.checkpoint.write_seconds_{world_size}p: {max(writing):.1f}")
        print(f"train.checkpoint.load_seconds_{world_size}p: {max(loading):.1f}")
    print(f"train.checkpoint.different_bytes: {len(digests) - 1}")


if __name__ == "__main__":
    main()
