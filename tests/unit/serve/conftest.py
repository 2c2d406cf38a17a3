"""Two published versions, requests from the logs with the probabilities that each version owes them, and servers."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from components.common import storage
from components.common.examples import EVALUATION, read_examples
from components.common.layout import Store
from components.common.objectives import OBJECTIVE_NAMES, SERVED_OBJECTIVES
from components.common.release import read_pointer, write_record
from components.common.servable import version_digest
from components.export.config import ExportConfig
from components.export.run import export_releases
from components.publish.registry import publish_releases
from components.serve.client import RankerClient
from components.serve.predictor import Predictor
from components.serve.tensors import request_tensors
from components.serve.version import Version
from pipelines.requests import logged_requests
from tests.conftest import Deployment
from tests.serving import Server
from tests.unit.export.test_export import blessing_of


@dataclass(frozen=True)
class Published:
    """A store with two versions, of which `old` is in production.

    Attributes:
        store: Its registry, logs and examples.
        old: Digest of the control's version.
        new: Digest of the candidate's version.
        requests: As JSON, from the logs.
        tensors: The same as tensors.
        expected: By version, what the evaluator's examples give: per request, shape (served objectives, n).
    """

    store: Store
    old: str
    new: str
    requests: list[dict]
    tensors: list[dict[str, np.ndarray]]
    expected: dict[str, list[np.ndarray]]


@pytest.fixture(scope="session")
def published(trained: Deployment, tmp_path_factory: pytest.TempPathFactory) -> Published:
    """Both arms' versions in a store of their own."""
    root = str(tmp_path_factory.mktemp("served"))
    shutil.copytree(trained.store.root, root, dirs_exist_ok=True)
    store, digests = Store(root), []
    for action, arm in (("experiment", "candidate"), ("first", "control")):
        blessing = blessing_of(trained, arm, action)
        write_record(store.blessing("serving", trained.scored_day), blessing)
        manifests = export_releases(root, ExportConfig(), "serving", trained.scored_day)
        publish_releases(store, blessing, [version_digest(manifest) for manifest in manifests])
        digests.append(version_digest(manifests[0]))
    new, old = digests
    assert read_pointer(store).version == old and new != old
    contract = Version.published(store, old).contract()
    found = [logged for logged, _ in zip(logged_requests(store, trained.scored_day, contract), range(60), strict=False)]
    table, _ = read_examples(store, EVALUATION, trained.scored_day)
    columns = [OBJECTIVE_NAMES.index(name) for name in SERVED_OBJECTIVES]
    expected = {}
    for digest in digests:
        probabilities = Predictor.from_version(store.version(digest))[0].predict(table)[:, columns]
        expected[digest] = [probabilities[logged.rows].T for logged in found]
    requests = [logged.request for logged in found]
    return Published(store, old, new, requests, [request_tensors(request) for request in requests], expected)


@pytest.fixture
def fresh_store(published: Published, tmp_path: Path) -> Store:
    """A store with the same registry and no deployment."""
    registry = storage.join_uri(published.store.root, "registry")
    shutil.copytree(registry, tmp_path / "store" / "registry")
    return Store(str(tmp_path / "store"))


@pytest.fixture(scope="session")
def servers(published):
    with Server("embedding", published.store.root) as embedding:
        options = ("--embedding-address", embedding.address, "--set", "max_candidates=300")
        with Server("ranker", published.store.root, *options) as ranker:
            embedding.wait_ready()
            ranker.wait_ready()
            yield embedding, ranker


@pytest.fixture(scope="session")
def client(servers):
    with RankerClient(servers[1].address) as found:
        yield found
