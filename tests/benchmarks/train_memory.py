"""Peak resident memory of training on tables of 2.03 million rows with lazy Adam, one figure a line.

`train.import_mb` is the peak before the tables are made: imports and the generated examples. Run in a process of its
own, and from a small one: a child's peak starts at its parent's.
"""

from __future__ import annotations

import torch

from components.tables import memory
from tests.benchmarks.peak_memory import peak_mb
from tests.benchmarks.train_dcn import Afterclick
from tests.benchmarks.train_rows import BATCH, LARGE, draw_rows

NUM_THREADS, STEPS = 2, 20


def main() -> None:
    """Print the figures."""
    torch.set_num_threads(NUM_THREADS)
    memory.reuse_buffers()
    rows = draw_rows(LARGE, STEPS * BATCH)
    imports = peak_mb()
    variant = Afterclick(LARGE)
    variant.train(variant.batches(rows))
    weight = variant.model.embeddings.weight
    print(f"train.import_mb: {imports:.0f}")
    print(f"train.tables_mb: {weight.numel() * weight.element_size() / 1e6:.0f}")
    print(f"train.peak_mb: {peak_mb():.0f}")


if __name__ == "__main__":
    main()
