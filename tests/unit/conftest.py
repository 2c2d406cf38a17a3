"""Published versions that several folders of tests share."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from components.common.layout import Store
from tests.conftest import Deployment

if TYPE_CHECKING:
    from components.version.manifest import VersionManifest
    from tests.published import Published


@pytest.fixture(scope="session")
def published(trained: Deployment, tmp_path_factory: pytest.TempPathFactory) -> Published:
    """Both arms' versions in a store of their own."""
    from tests.published import publish_both

    return publish_both(trained, str(tmp_path_factory.mktemp("served")))


@pytest.fixture
def fresh_store(published: Published, tmp_path: Path) -> Store:
    """A store with the same registry and no deployment."""
    from tests.published import registry_copy

    return registry_copy(published, tmp_path)


@pytest.fixture(scope="session")
def exported(trained: Deployment) -> tuple[Deployment, VersionManifest, str]:
    """The control's version, exported but not published: the deployment, its manifest and where it is."""
    from components.common.manifests import read_manifest
    from components.common.records import write_record
    from components.export.config import ExportConfig
    from components.export.run import export_releases
    from components.version.manifest import VersionManifest
    from tests.unit.export.served import blessing_of

    write_record(trained.store.blessing("batch", trained.scored_day), blessing_of(trained))
    export = export_releases(trained.store.root, ExportConfig(), "batch", trained.scored_day)
    assert not export.versions[0].withheld
    uri = trained.store.staged_version(export.versions[0].checkpoint_digest)
    manifest = read_manifest(uri, VersionManifest)
    assert manifest.version_digest == export.versions[0].version
    return trained, manifest, uri
