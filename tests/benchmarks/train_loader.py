"""Parquet to batches: 60 ids, 32 numbers, six labels an example, four days in a temporary store; one figure a line.

The first figure is of the loader alone; the second says how much of the time a ranker of the default size waits for it.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import date, timedelta

import numpy as np
import pyarrow as pa
import torch

from components.common import parquet_files, storage
from components.common.layout import Store
from components.common.manifests import Step, write_artifact
from components.features.examples import TRAINING, ExamplesManifest, example_schema
from components.features.feature_list import (
    CategoricalFeature,
    CountFeatures,
    EngagementFeatures,
    FeatureConfig,
    SequenceFeature,
    sequence_column,
)
from components.ranker.ranker import Ranker
from components.tables import memory
from components.tables.optimizer import ModelOptimizer
from components.train.config import TrainConfig
from components.train.loader import open_stream
from components.train.trainer import Trainer
from tests.benchmarks.train import BATCH, DIM, NUM_TABLES, NUM_THREADS, TABLE_ROWS

DAYS, ROWS_PER_DAY = [date(2026, 1, 1) + timedelta(days=number) for number in range(4)], 250_000

FEATURES = FeatureConfig(
    categorical=tuple(CategoricalFeature(name=f"id_{number}", num_rows=rows) for number, rows in enumerate(TABLE_ROWS)),
    sequence=SequenceFeature(length=1, entities=()),
    counts=CountFeatures(entities=()),
    engagement=EngagementFeatures(entities=()),
    numbers=tuple(f"number_{number}" for number in range(32)),
)


@contextmanager
def filled_store() -> Iterator[Store]:
    """Random examples."""
    schema = example_schema(FEATURES, pa.int64())
    with tempfile.TemporaryDirectory() as folder:
        store, generator = Store(folder), np.random.default_rng(0)
        for day in DAYS:
            table = pa.table(
                {name: _column(name, kind, generator) for name, kind in zip(schema.names, schema.types, strict=True)}
            )

            def write(staged: str, table: pa.Table = table) -> None:
                parquet_files.write_parquet(storage.join_uri(staged, "part-00000.parquet"), table)

            manifest = ExamplesManifest(
                origin=Step("benchmark").origin(), rows=len(table), positives={}, negative_keep_rate=1.0
            )
            write_artifact(store.examples(TRAINING, day), manifest, write)
        yield store


def _column(name: str, kind: pa.DataType, generator: np.random.Generator) -> pa.Array:
    if name in {sequence_column(one) for one in FEATURES.sequence_names}:
        return pa.array([[]] * ROWS_PER_DAY, type=kind)
    if name.startswith("id_"):
        return pa.array(generator.zipf(1.25, ROWS_PER_DAY), type=kind)
    if pa.types.is_floating(kind):
        return pa.array(generator.normal(size=ROWS_PER_DAY)).cast(kind)
    if pa.types.is_boolean(kind):
        return pa.array(np.ones(ROWS_PER_DAY, dtype=bool))
    return pa.array(generator.integers(0, 2, ROWS_PER_DAY)).cast(kind)


def main() -> None:
    """Print the figures."""
    torch.set_num_threads(NUM_THREADS)
    memory.reuse_buffers()
    values = {"batch_size": BATCH, "model": {"embedding_dim": DIM}, "optimizer": {"tables": "lazy_adam"}}
    config = TrainConfig.parse(values, "benchmark")
    assert len(TABLE_ROWS) == NUM_TABLES
    with filled_store() as store:
        stream, _ = open_stream(store, TRAINING, DAYS, FEATURES, config.pool_rows)
        started = time.monotonic()
        count = sum(len(batch.dense) for batch in stream.shuffled(BATCH, seed=0))
        print(f"train.loader.examples_per_second: {count / (time.monotonic() - started):.0f}")
        ranker = Ranker(FEATURES, config.model)
        trainer = Trainer(ranker, ModelOptimizer(ranker, config.optimizer), config, "benchmark")
        trainer.train_epoch(stream.shuffled(BATCH, seed=0), len(stream), 0)
        print(f"train.examples_per_second: {count / trainer.seconds:.0f}")
        print(f"train.first_batch_seconds: {trainer.opening_seconds:.1f}")
        print(f"train.waited_for_data_percent: {100 * trainer.waited_seconds / trainer.seconds:.1f}")


if __name__ == "__main__":
    main()
