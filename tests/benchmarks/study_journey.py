"""The training study on the examples that `make demo` left in runs/demo, with the demo's own features and recipe.

Trained on the batch days; tested on the continual days, then scored on and trained on them one at a time. All
seeds have the same data: standard errors are of random starts and orders, not of other customers.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

from components.common.digests import digest_json
from components.common.layout import Store
from components.common.manifests import read_manifest
from components.common.releases import DAILY
from components.features.examples import EVALUATION, TRAINING, ExamplesManifest
from components.train.config import TrainConfig
from pipelines.config import RunConfig, load_config
from tests.benchmarks.study_findings import Results
from tests.benchmarks.study_runs import StoredDays
from tests.benchmarks.study_training import ARMS, SEEDS, conclude, runs_of, study

SETTING = "journey"


def stored_days(store: Store, config: RunConfig) -> StoredDays:
    """The batch and continual days of a finished demo."""
    continual = store.finished_days(DAILY)
    if not continual:
        sys.exit(f"{store.root}: no finished day of training; run `make demo` first")
    first = config.schedule.first_day
    batch = config.dataset.open_days(first, config.dataset.open_day(first, config.schedule.num_batch_days - 1))
    uris = [store.examples(TRAINING, day) for day in [*batch, *continual]]
    uris += [store.examples(EVALUATION, day) for day in continual]
    return StoredDays(
        store_uri=store.root,
        batch_days=tuple(batch),
        continual_days=tuple(continual),
        features=config.features,
        examples_digest=digest_json([read_manifest(uri, ExamplesManifest).content_digest for uri in uris]),
    )


def journey_recipe(config: RunConfig) -> TrainConfig:
    """The demo's candidate, with the lazy Adam that row frequencies need."""
    values = config.arms["sparse_optimizer"].model_dump()
    values["optimizer"]["tables"] = "lazy_adam"
    return TrainConfig.model_validate({**values, "num_threads": 1})


def main(arguments: list[str] | None = None) -> None:
    """Run the study."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("store", nargs="?", default="runs/demo")
    parser.add_argument("--folder", type=Path, default=Path("build/study-training-journey"))
    parser.add_argument("--processes", type=int, default=2, help="runs at a time, on one thread each; 0: none")
    chosen = parser.parse_args(arguments)
    started, config = time.monotonic(), load_config("complete_journey")
    source, base = stored_days(Store(chosen.store), config), journey_recipe(config)
    plan = {SETTING: [runs_of(SETTING, source, base, ARMS, seed) for seed in SEEDS]}
    outcomes = study(plan, chosen.folder / "runs", chosen.processes)
    results = Results(SETTING, outcomes[SETTING], "study.{setting}.{experiment}")
    conclude("Complete Journey", [results], source, chosen.folder, f"study.{SETTING}")
    print(f"study.{SETTING}.seconds: {time.monotonic() - started:.0f}")


if __name__ == "__main__":
    main()
