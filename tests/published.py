"""Two published versions, and requests from the logs with the probabilities that each version owes them."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from datetime import date, timedelta
from pathlib import Path

import numpy as np

from cli.logged_requests import logged_requests
from components.common.layout import Store
from components.common.records import write_record
from components.common.releases import read_pointer
from components.export.config import ExportConfig
from components.export.run import export_releases
from components.features.examples import EVALUATION, read_examples
from components.features.objectives import DEFAULT_SERVED, OBJECTIVE_NAMES
from components.join.assemble import JoinJob
from components.online.config import OnlineConfig
from components.online.run import publish_online
from components.publish.registry import publish_releases
from components.serve.tensors import request_tensors
from components.version.predictor import Predictor
from components.version.version import Version
from tests.conftest import Deployment
from tests.unit.export.served import blessing_of


@dataclass(frozen=True)
class Published:
    """A store with two versions, of which `old` is in production.

    Attributes:
        trained: What it is a copy of.
        store: Its registry, logs and examples.
        old: Digest of the control's version.
        new: Digest of the candidate's version.
        requests: As JSON, from the logs.
        tensors: The same as tensors.
        expected: By version, what the evaluator's examples give: per request, shape (served objectives, n).
    """

    trained: Deployment
    store: Store
    old: str
    new: str
    requests: list[dict]
    tensors: list[dict[str, np.ndarray]]
    expected: dict[str, list[np.ndarray]]

    def ids(self, num_rows: int) -> np.ndarray:
        """Ids that a look-up of so many rows may have, int64, shape (n, C)."""
        columns = Version.published(self.store, self.old).manifest.features.served_columns
        return np.zeros((num_rows, len(columns)), dtype=np.int64)


def publish_both(trained: Deployment, root: str) -> Published:
    """Publish both arms' versions in a copy of a deployment."""
    shutil.copytree(trained.store.root, root, dirs_exist_ok=True)
    store, digests = Store(root), []
    for action, arm in (("experiment", "sparse_optimizer"), ("first", "baseline")):
        blessing = blessing_of(trained, arm, action)
        write_record(store.blessing("serving", trained.scored_day), blessing)
        export = export_releases(root, ExportConfig(), "serving", trained.scored_day)
        publish_releases(store, blessing, export)
        digests.append(export.versions[0].version)
    new, old = digests
    assert read_pointer(store).version == old and new != old
    contract = Version.published(store, old).contract()
    found = [logged for logged, _ in zip(logged_requests(store, trained.scored_day, contract), range(60), strict=False)]
    table, _ = read_examples(store, EVALUATION, trained.scored_day)
    columns = [OBJECTIVE_NAMES.index(name) for name in DEFAULT_SERVED]
    expected = {}
    for digest in digests:
        probabilities = Predictor.from_version(Version.published(store, digest)).predict(table)[:, columns]
        expected[digest] = [probabilities[logged.rows].T for logged in found]
    requests = [logged.request for logged in found]
    return Published(trained, store, old, new, requests, [request_tensors(request) for request in requests], expected)


def publish_online_features(published: Published, day: date) -> None:
    """Publish the online features of a log day in the same store."""
    config, after = published.trained.config, day + timedelta(days=1)
    job = JoinJob(config.dataset, config.features, config.join, after, after, after, after)
    publish_online(published.store, job, OnlineConfig())


def registry_copy(published: Published, folder: Path) -> Store:
    """A store in a folder with the same registry and no deployment."""
    shutil.copytree(Path(published.store.root, "registry"), folder / "store" / "registry")
    return Store(str(folder / "store"))
