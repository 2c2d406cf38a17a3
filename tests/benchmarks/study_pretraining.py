"""Do pretrained tables foretell engagement, and do rankers that start from them rank better?

Every seed draws its own starts and orders, on the same logs: standard errors are of those, not of other customers. Each
piece of work is a file of its own, so that a second call goes on.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import date, timedelta
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from components.collect_edges.run import collect_edges
from components.common.days import day_range
from components.common.layout import Store
from components.features.examples import EVALUATION, read_examples
from components.features.objectives import OBJECTIVE_NAMES
from components.join.assemble import JoinJob
from components.join.run import join_days
from components.make_logs.run import make_logs
from components.pretrain.config import PretrainConfig
from components.pretrain.run import pretrain
from components.ranker.auc import weighted_auc
from components.ranker.checkpoint import TrainedRanker
from components.ranker.dataset import tensors_of
from components.train.config import TrainConfig
from components.train.one_model import train_batch
from data_validation.logs.validate import validate_logs
from pipelines.config import RunConfig, load_config
from tests.benchmarks.matrix_factorisation import als_hits

SEEDS = (0, 1, 2)
NUM_SCORED_DAYS = 3
CONTRASTIVE: dict[str, Any] = {"epochs": 5, "batch_size": 1024, "num_negatives": 256}
GRAPH: dict[str, Any] = {"epochs": 5, "batch_size": 256, "num_negatives": 128, "model": "distmult"}
# What is pretrained: sections, by name.
TABLES: dict[str, dict[str, Any]] = {
    "contrastive": {"contrastive": CONTRASTIVE},
    "log_q": {"contrastive": {**CONTRASTIVE, "log_q": True}},
    "bce": {"contrastive": {**CONTRASTIVE, "loss": "bce"}},
    "graph": {"contrastive": None, "graph": GRAPH},
    "both": {"contrastive": CONTRASTIVE, "graph": GRAPH},
}
# What a ranker starts from: the tables, the mode, and how many days before the batch's end their window ends.
RANKERS: dict[str, tuple[str, str, int]] = {
    "none": ("", "", 0),
    "single_stage": ("", "single_stage", 0),
    "frozen": ("contrastive", "frozen", 0),
    "finetuned": ("contrastive", "finetuned", 0),
    "gated": ("contrastive", "gated", 0),
    "finetuned_log_q": ("log_q", "finetuned", 0),
    "finetuned_bce": ("bce", "finetuned", 0),
    "finetuned_graph": ("graph", "finetuned", 0),
    "finetuned_both": ("both", "finetuned", 0),
    "finetuned_before_batch": ("contrastive", "finetuned", 8),
    "finetuned_stale": ("contrastive", "finetuned", 24),
}
JOURNEY_RANKERS: dict[str, tuple[str, str, int]] = {
    **{
        name: RANKERS[name]
        for name in ("none", "single_stage", "frozen", "finetuned", "gated", "finetuned_log_q", "finetuned_bce")
    },
    "finetuned_both": RANKERS["finetuned_both"],
    "finetuned_before_batch": ("contrastive", "finetuned", 30),
    "finetuned_3_months": ("contrastive", "finetuned", 91),
    "finetuned_6_months": ("contrastive", "finetuned", 182),
}
SIMULATED_EDGES = [
    {"name": "clicked", "action_type": "click"},
    {"name": "added", "action_type": "add_to_cart"},
    {"name": "bought", "action_type": "checkout"},
    {"name": "of_campaign", "source": "item_id", "target": "campaign_id"},
]
JOURNEY_EDGES = [
    {"name": "bought", "action_type": "checkout"},
    {"name": "of_type", "source": "item_id", "target": "product_type"},
    {"name": "of_maker", "source": "item_id", "target": "manufacturer_id"},
]


@dataclass(frozen=True)
class Setting:
    """Logs, and what is tried on them.

    Attributes:
        config: The deployment.
        first_day: Of the logs that are read.
        dim: Of the tables.
        relations: Of the edges.
        rankers: What is trained.
    """

    config: RunConfig
    first_day: date
    dim: int
    relations: list[dict[str, Any]]
    rankers: dict[str, tuple[str, str, int]]


def simulated(rows: int) -> Setting:
    """The simulator with more users and items than its shipped configuration, so that ids matter."""
    config = load_config("simulator")
    first, values = config.dataset.first_day, config.model_dump(mode="json")
    values["source"] |= {"last_day": str(first + timedelta(days=51)), "impressions_per_day": rows}
    values["source"] |= {"num_users": rows // 2, "num_items": 2_000}
    values["schedule"] |= {"first_day": str(first + timedelta(days=34)), "num_batch_days": 8}
    for feature, num_rows in (("user_id", 16_384), ("item_id", 4_096)):
        next(one for one in values["features"]["categorical"] if one["name"] == feature)["num_rows"] = num_rows
    return Setting(RunConfig.model_validate(values), first, 16, SIMULATED_EDGES, RANKERS)


def journey() -> Setting:
    """The Complete Journey's year, with a batch in autumn: half a year of purchases lies before it."""
    config = load_config("complete_journey")
    values = config.model_dump(mode="json")
    values["source"] |= {"last_day": "2017-11-01"}
    values["schedule"] |= {"first_day": "2017-09-18", "num_batch_days": 30}
    # Promotions begin on the third day of the logs.
    return Setting(RunConfig.model_validate(values), date(2017, 1, 3), 4, JOURNEY_EDGES, JOURNEY_RANKERS)


SETTINGS: dict[str, Callable[[], Setting]] = {
    "simulated_small": lambda: simulated(8_000),
    "simulated": lambda: simulated(30_000),
    "journey": journey,
}


class Study:
    """The store, and what was found so far."""

    def __init__(self, folder: Path, setting: Setting) -> None:
        """Work in a folder."""
        self.folder, self.setting, self.config = folder, setting, setting.config
        self.store = Store(str(folder / "store"))
        first, number = self.config.schedule.first_day, self.config.schedule.num_batch_days
        self.batch = day_range(first, first + timedelta(days=number - 1))
        self.scored = day_range(self.batch[-1] + timedelta(days=1), self.batch[-1] + timedelta(days=NUM_SCORED_DAYS))

    def prepare(self) -> None:
        """Logs, examples and edges."""
        config, root = self.config, self.store.root
        as_of = config.dataset.mature_on(self.scored[-1]) + timedelta(days=1)
        days = day_range(self.setting.first_day, as_of - timedelta(days=1))
        make_logs(root, config.dataset, config.source.model_dump(mode="json"), days)
        validate_logs(root, config.dataset, config.validation, days, as_of)
        join_days(
            root,
            JoinJob(
                config.dataset, config.features, config.join, self.batch[0], self.scored[-1], as_of, self.scored[0]
            ),
        )
        until = day_range(self.setting.first_day, self.batch[-1])
        collect_edges(root, config.dataset, self.section("both", 0).edges, until)

    def section(self, tables: str, seed: int, age: int = 0) -> PretrainConfig:
        """What is pretrained."""
        days = (self.batch[-1] - timedelta(days=age) - self.setting.first_day).days + 1
        values = {"embedding_dim": self.setting.dim, "seed": seed, "num_threads": 1}
        values["edges"] = {"relations": self.setting.relations, "num_days": days}
        return PretrainConfig.parse(values | TABLES[tables], "pretrain")

    def found(self, name: str, work: Callable[[], Any]) -> Any:
        """A piece of work's result, from its file if it was done before."""
        path = self.folder / "found" / f"{name}.json"
        if not path.exists():
            result = work()
            path.parent.mkdir(parents=True, exist_ok=True)
            path.with_suffix(".new").write_text(json.dumps(result))
            path.with_suffix(".new").rename(path)
        return json.loads(path.read_text())

    def _variant(self, name: str) -> Store:
        """A store with the same logs, examples and edges."""
        root = self.folder / "variants" / name
        for part in ("clean_logs", "edges", "examples"):
            root.mkdir(parents=True, exist_ok=True)
            if not (root / part).exists():
                os.symlink(Path(self.store.root, part).absolute(), root / part)
        return Store(str(root))

    def tables(self, name: str, seed: int, age: int = 0) -> dict[str, Any]:
        """Pretrain; every epoch's figures."""
        store, through = self._variant(f"{name}-{age}-{seed}"), self.batch[-1] - timedelta(days=age)
        config = self.config
        manifest = pretrain(store.root, config.dataset, config.features, self.section(name, seed, age), through)
        return {"epochs": manifest.epochs, "popularity": manifest.popularity}

    def matrix_factorisation(self, seed: int) -> list[float]:
        """Hit@3 of ALS, among uniform items and by degree."""
        return als_hits(self.store, self.config, self.section("contrastive", seed), self.batch[-1])

    def ranker(self, name: str, seed: int) -> list[float]:
        """Train a ranker's batch; its AUC of each served objective, of all scored days together."""
        tables, mode, age = self.setting.rankers[name]
        store = self._variant(f"{tables}-{age}-{seed}" if tables else f"none-{seed}")
        values = self.config.arms["sparse_optimizer"].model_dump(mode="json")
        values |= {"seed": seed, "num_threads": 1, "epochs": 1, "pretrained": None}
        values["model"] |= {"embedding_dim": self.setting.dim}
        values["optimizer"] |= {"tables": "lazy_adam"}
        if mode:
            values["pretrained"] = {"mode": mode, "refuse_after_days": 365}
        recipe = TrainConfig.parse(values, "train")
        train_batch(store.root, name, self.config.features, recipe, self.batch)
        return self._score(store, name)

    def _score(self, store: Store, arm: str) -> list[float]:
        ranker = TrainedRanker.load(store, arm, self.batch[-1])
        labels, masks, predicted = [], [], []
        for day in self.scored:
            table, _ = read_examples(store, EVALUATION, day)
            examples = tensors_of(table, self.config.features, unsampled=True)
            labels.append(examples.labels.numpy())
            masks.append(examples.masks.numpy() > 0)
            predicted.append(ranker.predict(examples, 4096))
        label, mask, probability = (np.concatenate(parts) for parts in (labels, masks, predicted))
        found = []
        for objective in self.config.served:
            number = OBJECTIVE_NAMES.index(objective)
            rows = mask[:, number]
            auc = weighted_auc(label[rows, number], probability[rows, number], np.ones((int(rows.sum()), 1)))
            found.append(float(auc[0]))
        return found


def mean_and_error(values: list[float]) -> tuple[float, float]:
    """Mean, and its standard error."""
    return statistics.mean(values), statistics.stdev(values) / len(values) ** 0.5


def run(name: str, folder: Path) -> None:
    """Run one setting, and print what it shows."""
    started, study, title = time.monotonic(), Study(folder / name, SETTINGS[name]()), f"study_pretraining.{name}"
    study.prepare()
    for tables in dict.fromkeys(tables for tables, _, _ in study.setting.rankers.values() if tables):
        found = [study.found(f"tables-{tables}-{seed}", lambda t=tables, s=seed: study.tables(t, s)) for seed in SEEDS]
        for number, point in enumerate(found[0]["epochs"]):
            for key in ("hit_at_3", "hit_at_3_by_degree"):
                mean, error = mean_and_error([one["epochs"][number][key] for one in found])
                stage = f"{point['stage']}.epoch_{point['epoch']}"
                print(f"{title}.{tables}.{stage}.{key}: {mean:.4f} +- {error:.4f}", flush=True)
    uniform, by_degree = found[0]["popularity"]
    print(f"{title}.popularity.hit_at_3: {uniform:.4f}, by degree {by_degree:.4f}")
    if find_spec("implicit"):
        hits = [study.found(f"als-{seed}", lambda s=seed: study.matrix_factorisation(s)) for seed in SEEDS]
        for place, key in enumerate(("hit_at_3", "hit_at_3_by_degree")):
            mean, error = mean_and_error([rates[place] for rates in hits])
            print(f"{title}.als.{key}: {mean:.4f} +- {error:.4f}", flush=True)
    else:
        print(f"{title}.als: left out, the package implicit is not installed (requirements/peers.txt)")
    plain: list[list[float]] = []
    for ranker, (tables, _, age) in study.setting.rankers.items():
        aucs = []
        for seed in SEEDS:
            if age:
                study.found(f"tables-{tables}-{age}-{seed}", lambda t=tables, s=seed, a=age: study.tables(t, s, a))
            aucs.append(study.found(f"ranker-{ranker}-{seed}", lambda r=ranker, s=seed: study.ranker(r, s)))
        plain = plain or aucs
        for place, objective in enumerate(study.config.served):
            mean, error = mean_and_error([auc[place] for auc in aucs])
            line = f"{title}.auc.{ranker}.{objective}: {mean:.4f} +- {error:.4f}"
            if ranker != "none":
                gains = [100 * (auc[place] / base[place] - 1) for auc, base in zip(aucs, plain, strict=True)]
                gain, of_gain = mean_and_error(gains)
                line += f" (gain {gain:+.2f}% +- {of_gain:.2f})"
            print(line, flush=True)
    print(f"{title}.seconds: {time.monotonic() - started:.0f}")


def main(arguments: list[str] | None = None) -> None:
    """Run the study."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("settings", nargs="*", default=["simulated"])
    parser.add_argument("--folder", type=Path, default=Path("build/study-pretraining"))
    chosen = parser.parse_args(arguments)
    for name in chosen.settings:
        if name not in SETTINGS:
            sys.exit(f"{name}: no setting; there are {', '.join(SETTINGS)}")
        run(name, chosen.folder)


if __name__ == "__main__":
    main()
