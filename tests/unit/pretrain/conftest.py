"""Edges of the simulated deployment's logs."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

import pytest

from components.collect_edges.run import collect_edges
from components.common.days import day_range
from components.common.layout import Store
from components.pretrain.config import PretrainConfig
from tests.conftest import Deployment, copy_clean_logs


def pretraining(**changes: Any) -> PretrainConfig:
    """A small section `pretrain`."""
    values: dict[str, Any] = {
        "embedding_dim": 8,
        "edges": {
            "num_days": 8,
            "relations": [
                {"name": "clicked", "action_type": "click"},
                {"name": "bought", "action_type": "checkout"},
                {"name": "of_campaign", "source": "item_id", "target": "campaign_id"},
            ],
        },
        "contrastive": {"epochs": 2, "batch_size": 128, "num_negatives": 32},
        "num_threads": 1,
        "hits": {"num_candidates": 50},
    }
    of_edges = {name: changes.pop(name) for name in ("num_days", "relations") if name in changes}
    return PretrainConfig.parse(values | changes | {"edges": values["edges"] | of_edges}, "pretrain")


@dataclass(frozen=True)
class Logs:
    """A store with clean logs and the edges of `days`."""

    deployment: Deployment
    store: Store
    days: list[date]


@pytest.fixture(scope="session")
def edges(joined: Deployment, tmp_path_factory: pytest.TempPathFactory) -> Logs:
    """The edges until the last batch day; not to be written to."""
    store = copy_clean_logs(joined, str(tmp_path_factory.mktemp("edges")))
    days = day_range(joined.config.dataset.first_day, joined.batch_days[-1])
    collect_edges(store.root, joined.config.dataset, pretraining().edges, days)
    return Logs(joined, store, days)


@pytest.fixture()
def own_edges(edges: Logs, tmp_path: Path) -> Logs:
    """The same in a store of the test's own."""
    shutil.copytree(edges.store.root, tmp_path / "store")
    return Logs(edges.deployment, Store(str(tmp_path / "store")), edges.days)
