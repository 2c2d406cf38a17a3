"""Published versions that several folders of tests share."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from components.common import storage
from components.common.layout import Store
from tests.conftest import Deployment

if TYPE_CHECKING:
    from tests.published import Published


@pytest.fixture(scope="session")
def published(trained: Deployment, tmp_path_factory: pytest.TempPathFactory) -> Published:
    """Both arms' versions in a store of their own."""
    from tests.published import publish_both

    return publish_both(trained, str(tmp_path_factory.mktemp("served")))


@pytest.fixture
def fresh_store(published: Published, tmp_path: Path) -> Store:
    """A store with the same registry and no deployment."""
    registry = storage.join_uri(published.store.root, "registry")
    shutil.copytree(registry, tmp_path / "store" / "registry")
    return Store(str(tmp_path / "store"))
