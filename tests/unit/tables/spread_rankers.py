"""Rankers in one process, and in each of two that hold parts of the tables."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import torch
from torch import distributed

from components.features.feature_list import FeatureConfig
from components.features.objectives import OBJECTIVES
from components.ranker.batch import Batch
from components.ranker.config import ModelConfig
from components.ranker.feature_processing import Moments
from components.ranker.ranker import Ranker
from components.tables.config import OptimizerConfig, ShardingConfig
from components.tables.look_ups import double_of
from components.tables.optimizer import ModelOptimizer
from components.tables.processes import Process, Share
from components.tables.shard_layout import HeldRows
from components.tables.sharding import shard
from components.tables.sparse_ids import make_sparse
from components.tables.state_files import read_state, write_state
from components.tables.table_model import TABLES_WEIGHT
from components.train.trainer import sharded_loss

WORLD_SIZE, BATCH_SIZE, STEPS = 2, 64, 100
KINDS, DOUBLES = ("table_wise", "row_wise"), double_of("item_id")
CPU, WEIGHTS = torch.device("cpu"), torch.tensor([1.0, 0.5, 2.0, 1.0, 0.0, 3.0])
# The parts of a batch are unequal, so that only denominators of the whole batch give its loss.
PARTS = (slice(0, 40), slice(40, BATCH_SIZE))

FEATURES = FeatureConfig.parse(
    {
        "categorical": [
            {"name": name, "num_rows": rows} for name, rows in (("user_id", 501), ("item_id", 200), ("surface", 3))
        ],
        "vectors": [{"name": "item_vector", "entity": "item_id", "dim": 6}],
        "sequence": {"length": 5, "entities": ["item_id"], "action_types": ["click"]},
        "counts": {"entities": ["item_id"], "action_types": ["click"], "windows_days": [7]},
        "engagement": {"entities": ["item_id"]},
    },
    "features",
)
MODEL = ModelConfig(embedding_dim=8, sequence_dim=8, hidden_sizes=(16,), head_size=4)
OPTIMIZER = OptimizerConfig.parse(
    {
        "tables": "lazy_adam",
        "table_multiplier": 50.0,
        "frequency_adaptive": {},
        "bias_correction": "row",
        "reinitialize": {"keep_above": 40},
    },
    "optimizer",
)


def batch_of(step, rows=slice(None)):
    """Some rows of a step's batch, the same in every process."""
    generator = np.random.default_rng(step)
    sizes = [feature.num_rows for feature in FEATURES.categorical]
    categorical = np.stack([generator.zipf(1.3, BATCH_SIZE) % size for size in sizes], axis=1)
    tables = [FEATURES.tables[FEATURES.sequence_table(name)] for name in FEATURES.sequence_names]
    sequence = np.stack([generator.zipf(1.3, (BATCH_SIZE, 5)) % size for size in tables], axis=2)
    lengths = generator.integers(0, 6, BATCH_SIZE)
    dense = torch.from_numpy(generator.normal(size=(BATCH_SIZE, len(FEATURES.dense_names))).astype(np.float32))
    shape = (BATCH_SIZE, len(OBJECTIVES))
    labels = torch.from_numpy((generator.random(shape) < 0.3).astype(np.float32))
    masks = torch.from_numpy((generator.random(shape) < [1, 0.9, 0.3, 0.2, 0.8, 0.02]).astype(np.float32))
    ids = [torch.from_numpy(values)[rows] for values in (categorical, sequence, lengths)]
    vectors = generator.normal(size=(BATCH_SIZE, 6)) * (generator.random((BATCH_SIZE, 1)) < 0.8)
    vectors = torch.from_numpy(vectors.astype(np.float32))
    return Batch(make_sparse(FEATURES, *ids), vectors[rows], dense[rows], labels[rows], masks[rows])


def made(held=None):
    torch.manual_seed(0)
    ranker = Ranker(FEATURES, MODEL, held, ("item_id",))
    weight = ranker.embeddings.weight
    if not weight.is_meta:
        pretrained = torch.randn(FEATURES.tables["item_id"], MODEL.embedding_dim, generator=torch.Generator())
        rows = held or HeldRows.alone(len(weight))
        rows.put(weight.data, pretrained, ranker.embeddings.first_rows[DOUBLES])
    return ranker


class OneProcess:
    """A ranker with all tables."""

    def __init__(self, checkpoint=None):
        self.model = made()
        self.model.net.normalize.fit(Moments.of(batch_of(0).dense))
        self.optimizer = ModelOptimizer(self.model, OPTIMIZER, (DOUBLES,))
        if checkpoint is not None:
            self.load(checkpoint)

    def train(self, first, last):
        """Losses of the steps."""
        self.model.train()
        losses = []
        for step in range(first, last):
            self.optimizer.zero_grad()
            total, means = self.loss(step)
            total.backward()
            self.optimizer.step()
            losses.append(means.detach())
        return torch.stack(losses)

    def loss(self, step):
        return self.model.loss(batch_of(step), WEIGHTS)

    @property
    def held(self):
        return HeldRows.alone(len(self.model.embeddings.weight))

    def checkpoint(self, folder):
        """Write the model's and the optimizer's tensors."""
        os.makedirs(folder, exist_ok=True)
        write_state(str(folder), "model.safetensors", self.model.state_dict(), TABLES_WEIGHT.__eq__, self.held)
        moments = self.optimizer.state_tensors()
        write_state(str(folder), "optimizer.safetensors", moments, self.optimizer.is_by_row, self.held)
        return folder

    def load(self, folder):
        def read(name):
            return Path(folder, name).read_bytes()

        weights, moments = self.model.state_dict(), self.optimizer.state_tensors()
        weights = read_state(read, "model.safetensors", TABLES_WEIGHT.__eq__, self.held, weights)
        moments = read_state(read, "optimizer.safetensors", self.optimizer.is_by_row, self.held, moments)
        self.model.load_state_dict(weights)
        self.optimizer.load_state_tensors(moments)

    def evaluate(self, step):
        """Logits of this process's rows."""
        self.model.eval()
        with torch.no_grad():
            return self.model(batch_of(step))


class TwoProcesses(OneProcess):
    """A ranker with this process's part of the tables."""

    def __init__(self, kind, checkpoint=None):
        self.parallel = shard(made, FEATURES, BATCH_SIZE // WORLD_SIZE, ShardingConfig(kinds=(kind,)), CPU)
        self.model, rank = self.parallel.module, distributed.get_rank()
        # The net of rank 0 counts, with what it was fitted on.
        self.model.net.normalize.fit(Moments.of(batch_of(rank).dense))
        self.model.net.wide.bias.data += rank
        Process(CPU, Share(rank, WORLD_SIZE)).copy_from_first(self.model.net.state_dict().values())
        self.optimizer = ModelOptimizer(self.model, OPTIMIZER, (DOUBLES,))
        if checkpoint is not None:
            self.load(checkpoint)

    @property
    def held(self):
        return self.model.embeddings.held

    def loss(self, step):
        return sharded_loss(self.parallel, batch_of(step, PARTS[distributed.get_rank()]), WEIGHTS)

    def evaluate(self, step):
        self.parallel.eval()
        with torch.no_grad():
            return self.parallel(batch_of(step, PARTS[distributed.get_rank()]))
