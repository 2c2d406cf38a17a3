"""Exact ids: how fast they are found and admitted, and what a table of them costs beside its vectors.

`python -m tests.benchmarks.vocabulary [ids]`; 12 million by default. Prints one figure a line.
"""

from __future__ import annotations

import sys
import time

import numpy as np

from components.features.exact_ids import ExactIds, Vocabulary
from components.version.packed_ids import pack_ids

AT_ONCE = 65_536
DIM = 16


def best_of(times: int, work) -> float:
    """Seconds of the fastest of some runs."""
    seconds = []
    for _ in range(times):
        started = time.perf_counter()
        work()
        seconds.append(time.perf_counter() - started)
    return min(seconds)


def known_per_second(vocabulary: Vocabulary, asked: np.ndarray) -> float:
    """Ids found a second, in pieces as examples are encoded."""
    index, parts = vocabulary.index, np.array_split(asked, max(len(asked) // AT_ONCE, 1))
    return len(asked) / best_of(5, lambda: [index.find(part) for part in parts])


def main(num_ids: int = 12_000_000) -> None:
    """Print the figures."""
    generator = np.random.default_rng(0)
    for size in (100_000, 1_000_000, num_ids):
        ids = np.unique(generator.integers(0, 2**63 - 1, size))
        vocabulary = Vocabulary(ExactIds(capacity=size, admit_after=1))
        started = time.perf_counter()
        vocabulary.update(ids, np.ones(len(ids), dtype=np.int64), 0)
        admitted = len(ids) / (time.perf_counter() - started)
        # As logs have them: few ids are most of the occurrences.
        ranks = (len(ids) ** generator.random(4_000_000)).astype(np.int64)
        drawn = {"even": generator.choice(ids, 4_000_000), "zipf": generator.permutation(ids)[ranks - 1]}
        for kind, asked in drawn.items():
            found = known_per_second(vocabulary, asked)
            print(f"train.vocabulary.ids_per_s.{kind}.of_{size}: {found:,.0f}", flush=True)
        print(f"train.vocabulary.new_ids_per_s.of_{size}: {admitted:,.0f}", flush=True)
    day = np.unique(generator.choice(ids, num_ids // 20))
    started = time.perf_counter()
    vocabulary.update(day, np.ones(len(day), dtype=np.int64), 1)
    print(f"train.vocabulary.day_seconds: {time.perf_counter() - started:.2f} for {len(day):,} ids of {len(ids):,}")
    state = sum(values.nbytes for values in vocabulary.state.values())
    packed, _ = pack_ids({"item_id": vocabulary.index})
    print(f"train.vocabulary.checkpoint_bytes_per_id: {state / len(ids):.1f}")
    print(f"serve.vocabulary.bytes_per_id: {len(packed) / len(ids):.1f}, beside {DIM // 2 + 4} of an INT4 row of {DIM}")


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
