"""Small simulated deployments that many tests share."""

from __future__ import annotations

import gc
import os
import shutil
from contextlib import ExitStack
from dataclasses import dataclass, replace
from datetime import date, timedelta
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from xdist.scheduler import LoadScopeScheduling

from components.common import storage
from components.common.arms import ArmList, ArmRecipe, write_recipe
from components.common.config import ResolvedConfig
from components.common.layout import Store
from components.common.long_lived import long_lived
from components.common.records import write_record
from components.common.store_format import claim_format
from components.features.feature_list import FeatureConfig
from components.sources.config import VectorSource
from components.sources.vector_days import check_id_types, deliver_vectors
from pipelines.config import RunConfig, load_config

os.environ.setdefault("AFTERCLICK_PROGRESS_SECONDS", "1000")
# Threads that wait for work must not keep the cores of the other tests busy; read when torch is imported.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

# Until all test modules are imported.
_IMPORTS = ExitStack()
_IMPORTS.enter_context(long_lived())


def pytest_collection_finish() -> None:
    """All is imported."""
    _IMPORTS.close()


def pytest_unconfigure() -> None:
    """Libraries that some test imported say that they leak what is not looked at when they end."""
    gc.unfreeze()


# Their fixtures take longer than their tests: one worker makes them once.
_ON_ONE_WORKER = (
    "tests/k8s/test_on_cluster",
    "tests/unit/common/test_lease.py",
    "tests/unit/common/test_object_store.py",
    "tests/pipelines/test_end_to_end.py",
    "tests/unit/export/test_single_file.py",
    "tests/unit/serve/",
    "tests/unit/tables/test_sharding.py",
)


class _Scheduling(LoadScopeScheduling):
    """Spreads tests over workers one by one, except those that share large fixtures, which come first."""

    def _split_scope(self, nodeid: str) -> str:
        return next((path for path in _ON_ONE_WORKER if nodeid.startswith(path)), nodeid)


def pytest_xdist_make_scheduler(config: pytest.Config, log: object) -> _Scheduling:
    """In place of the marker `xdist_group`, which xdist 3.8 loses under pytest 9.2."""
    return _Scheduling(config, log)


VECTOR_DIMS = {"item_vector": 20, "campaign_vector": 3}


def small_values() -> dict:
    """The shipped simulator configuration, smaller: four batch days, few rows, one thread."""
    values = yaml.safe_load(Path("pipelines/configs/simulator.yaml").read_text())
    values["source"] |= {"last_day": "2026-01-20", "impressions_per_day": 1500, "num_users": 4000}
    values["dataset"] |= {"context_lists": ["item_tags"], "context_list_weights": {"item_tags": "item_tag_weights"}}
    values["schedule"] |= {"first_day": "2026-01-07", "num_batch_days": 4}
    values["train"] |= {"num_threads": 1, "epochs": 1, "steps_per_point": 4, "replicas": 1}
    slices = [{"column": "surface", "values": [0, 1]}]
    values["evaluation"] = {"num_replicates": 20, "logistic_regression": False, "slices": slices}
    values["gate"] |= {"evidence": "point", "trial_days": 28, "min_positives": 5, "min_auc": 0.5}
    values["gate"] |= {"calibration_sigmas": 6.0, "max_refresh_loss_percent": 50.0}
    return values


def every_kind(features: dict) -> dict:
    """A feature list as plain values with features of all kinds; campaigns are exact ids, of more than have rows."""
    exact = {"capacity": 60, "admit_after": 3, "oov_rows": 4}
    own = [
        {"name": "campaign_id", "exact": exact} if feature["name"] == "campaign_id" else feature
        for feature in features["categorical"]
    ]
    own += [
        {"name": "campaign_on_surface", "crossed": ["campaign_id", "surface"], "num_rows": 512},
        {"name": "price_range", "quantiles": {"number": "price", "buckets": 8}},
    ]
    numbers = ["quality", {"name": "price", "scale": "min_max", "flag_absent": True}]
    vectors = [
        {"name": "item_vector", "entity": "item_id", "dim": VECTOR_DIMS["item_vector"]},
        {"name": "campaign_vector", "entity": "campaign_id", "dim": VECTOR_DIMS["campaign_vector"]},
    ]
    lists = [{"name": "item_tags", "exact": {"capacity": 8, "oov_rows": 2}, "length": 2, "weights": "item_tag_weights"}]
    more = {"lists": lists, "numbers": numbers, "since_last": ["any", "checkout"], "vectors": vectors}
    return features | {"categorical": own} | more


def write_vectors(folder: Path) -> dict:
    """Two deliveries of the vectors of `every_kind`, which not all items have; returns the configuration's section."""
    draw = np.random.default_rng(5)
    for name, dim in VECTOR_DIMS.items():
        for day in ("2026-01-05", "2026-01-09"):
            ids = draw.choice(500, 300, replace=False)
            numbers = draw.normal(scale=0.2, size=(300, dim)).astype(np.float32)
            files = folder / name / f"event_date={day}"
            files.mkdir(parents=True, exist_ok=True)
            table = pa.table({name.replace("vector", "id"): ids, "vector": list(numbers)})
            pq.write_table(table, files / "part.parquet")
    return {name: {"uri": str(folder / name)} for name in VECTOR_DIMS}


def deliver_all(deployment: Deployment, folder: Path) -> None:
    """Bring `write_vectors` into a deployment's store."""
    sources, days = write_vectors(folder), (deployment.batch_days[0], deployment.scored_day)
    for feature in with_every_kind(deployment).config.features.vectors:
        source = VectorSource.parse(sources[feature.name], "vectors")
        deliver_vectors(deployment.store, feature, source, *days)
        check_id_types(deployment.store, feature, source, days[-1])


def with_every_kind(deployment: Deployment) -> Deployment:
    """The same examples under such a feature list."""
    features = FeatureConfig.parse(every_kind(deployment.config.features.model_dump(mode="json")), "features")
    return replace(deployment, config=deployment.config.model_copy(update={"features": features}))


def write_config(path: Path, values: dict) -> Path:
    """Write a configuration file."""
    path.write_text(yaml.safe_dump(values, sort_keys=False))
    return path


@pytest.fixture(scope="session")
def small_config(tmp_path_factory: pytest.TempPathFactory) -> RunConfig:
    """`small_values`, validated."""
    return load_config(str(write_config(tmp_path_factory.mktemp("config") / "small.yaml", small_values())))


@dataclass(frozen=True)
class Deployment:
    """A store with joined examples of the batch days and the day after them."""

    store: Store
    config: RunConfig
    batch_days: list[date]
    scored_day: date


@pytest.fixture(scope="session")
def joined(small_config: RunConfig, tmp_path_factory: pytest.TempPathFactory) -> Deployment:
    """Simulated logs, validated and joined, with the columns of `every_kind`; not to be written to."""
    from components.join.assemble import JoinJob
    from components.join.run import join_days
    from components.make_logs.run import make_logs
    from data_validation.logs.validate import validate_logs

    config = small_config
    store = Store(str(tmp_path_factory.mktemp("joined")))
    claim_format(store)
    first = config.schedule.first_day
    days = [first + timedelta(days=i) for i in range(config.schedule.num_batch_days + 1)]
    as_of = config.dataset.mature_on(days[-1]) + timedelta(days=1)
    read = config.dataset.days_read(days[0], days[-1], config.features.history_days)
    make_logs(store.root, config.dataset, config.source.model_dump(mode="json"), read)
    validate_logs(store.root, config.dataset, config.validation, read, as_of)
    deployment = Deployment(store, config, days[:-1], days[-1])
    deliver_all(deployment, tmp_path_factory.mktemp("vectors"))
    features = with_every_kind(deployment).config.features
    join_days(store.root, JoinJob(config.dataset, features, config.join, days[0], days[-1], as_of, days[-1]))
    return deployment


def copy_clean_logs(deployment: Deployment, root: str) -> Store:
    """A store with the same clean logs, without examples."""
    shutil.copytree(storage.join_uri(deployment.store.root, "clean_logs"), storage.join_uri(root, "clean_logs"))
    return Store(root)


@pytest.fixture(scope="session")
def trained(joined: Deployment, tmp_path_factory: pytest.TempPathFactory) -> Deployment:
    """`joined` with a checkpoint of each arm after the batch days, scored on the day after them; of `every_kind`."""
    from components.evaluate.run import evaluate_day
    from components.gate.open_trials import open_trials
    from components.train.one_model import train_batch

    joined = with_every_kind(joined)
    config, root = joined.config, joined.store.root
    resolved = ResolvedConfig.open(config.write(joined.store))
    for arm, recipe in config.arms.items():
        write_recipe(joined.store, ArmRecipe.of(resolved, arm))
        train_batch(root, arm, config.features, recipe, joined.batch_days)
    days = (joined.scored_day, joined.batch_days[-1])
    open_trials(joined.store, resolved, "batch", *days)
    evaluate_day(root, config.dataset, config.evaluation, ArmList.of(joined.store, resolved), "batch", *days)
    _bring_graph(joined, tmp_path_factory.mktemp("exported"))
    return joined


def _bring_graph(deployment: Deployment, folder: Path) -> None:
    """Have the ONNX graph of a deployment's rankers in its store, which takes most of an export's time."""
    from components.export.config import ExportConfig
    from components.export.run import export_releases
    from tests.unit.export.served import blessing_of

    shutil.copytree(deployment.store.root, folder / "store")
    copy = replace(deployment, store=Store(str(folder / "store")))
    write_record(copy.store.blessing("batch", copy.scored_day), blessing_of(copy))
    export_releases(copy.store.root, ExportConfig(), "batch", copy.scored_day)
    graphs = Path("exports", "graphs")
    shutil.copytree(copy.store.root / graphs, deployment.store.root / graphs)
