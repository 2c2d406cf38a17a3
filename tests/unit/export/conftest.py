"""A deployment whose control may be exported."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from components.common import storage
from components.common.layout import Store
from components.common.records import write_record
from tests.conftest import Deployment
from tests.unit.export.served import Unexported, blessing_of


@pytest.fixture
def unexported(trained: Deployment, tmp_path: Path) -> Unexported:
    """A copy of the trained deployment."""
    shutil.copytree(trained.store.root, tmp_path / "store")
    deployment = replace(trained, store=Store(str(tmp_path / "store")))
    blessing = blessing_of(deployment)
    storage.remove(deployment.store.staged_version(blessing.releases[0].checkpoint_digest))
    write_record(deployment.store.blessing("batch", deployment.scored_day), blessing)
    return Unexported(deployment, blessing)
