"""Two published versions, and requests from the logs with what each version owes them."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from datetime import date, timedelta
from pathlib import Path

import numpy as np

from components.common.layout import Store
from components.common.records import write_record
from components.common.releases import read_pointer
from components.export.config import ExportConfig
from components.export.run import export_releases
from components.join.assemble import JoinJob
from components.online.config import OnlineConfig
from components.online.run import publish_online
from components.publish.registry import publish_releases
from components.version.version import Version
from tests.conftest import Deployment
from tests.owed import owed_by
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
    owed = owed_by(store, trained.scored_day, (old, new), 60)
    return Published(trained, store, old, new, owed.requests, owed.tensors, owed.expected)


def publish_online_features(published: Published, day: date) -> None:
    """Publish the online features of a log day in the same store."""
    config, after = published.trained.config, day + timedelta(days=1)
    job = JoinJob(config.dataset, config.features, config.join, after, after, after, after)
    publish_online(published.store, job, OnlineConfig())


def registry_copy(published: Published, folder: Path) -> Store:
    """A store in a folder with the same registry and no deployment."""
    shutil.copytree(Path(published.store.root, "registry"), folder / "store" / "registry")
    return Store(str(folder / "store"))
