"""The embedding tier on a store that is not local: tables are fetched once, verified and mapped."""

from __future__ import annotations

import uuid
from pathlib import Path

import pytest

from components.common import storage
from components.common.deployments import Deployment, write_deployment
from components.common.errors import InputError
from components.common.layout import Store
from components.serve.config import EmbeddingTierConfig
from components.serve.embedding_tier import EmbeddingTier
from components.version.manifest import IDS_FILE, TABLES_FILE
from tests.s3 import BUCKET, S3Server, s3_server


@pytest.fixture(scope="module")
def server():
    with s3_server() as running, pytest.MonkeyPatch.context() as patch:
        for name, value in running.environment.items():
            patch.setenv(name, value)
        yield running


@pytest.fixture
def remote(server: S3Server, published) -> Store:
    store = Store(f"s3://{BUCKET}/{uuid.uuid4().hex}")
    for path in storage.list_tree(storage.join_uri(published.store.root, "registry")):
        storage.upload(Path(published.store.root, "registry", path), storage.join_uri(store.root, "registry", path))
    server.restart_counts()
    return store


def loaded(store: Store, folder: Path | str) -> EmbeddingTier:
    tier = EmbeddingTier(EmbeddingTierConfig(store_uri=store.root, copies_folder=str(folder)))
    tier.load()
    return tier


def fetched(server: S3Server, digest: str) -> dict[str, int]:
    """How often the large files of a version were read since the last time."""
    counts = server.counts()
    server.restart_counts()
    return {
        name: sum(n for asked, n in counts.items() if asked.startswith("GET 20") and asked.endswith(f"{digest}/{name}"))
        for name in (TABLES_FILE, IDS_FILE)
    }


def is_mapped(path: Path) -> bool:
    return str(path) in Path("/proc/self/maps").read_text()


ONCE, NOT_AT_ALL = {TABLES_FILE: 1, IDS_FILE: 1}, {TABLES_FILE: 0, IDS_FILE: 0}


def test_tables_are_fetched_once_and_mapped(server, remote, published, tmp_path):
    folder = tmp_path / "copies"
    tier = loaded(remote, folder)
    assert tier.versions == [published.old] and is_mapped(folder / published.old / TABLES_FILE)
    assert fetched(server, published.old) == ONCE
    again = loaded(remote, folder)
    assert fetched(server, published.old) == NOT_AT_ALL
    columns = again.find(published.old).features.served_columns
    local = loaded(published.store, "").find(published.old)
    rows = [held.look_up(columns, published.ids(3)) for held in (again.find(published.old), local)]
    assert rows[0].tobytes() == rows[1].tobytes()


def test_tables_without_a_folder_are_read_once(server, remote, published):
    assert loaded(remote, "").versions == [published.old]
    assert fetched(server, published.old) == ONCE


def test_copy_that_is_damaged_is_fetched_again(server, remote, published, tmp_path):
    copy = tmp_path / published.old / TABLES_FILE
    copy.parent.mkdir()
    copy.write_bytes(b"half of i")
    (copy.parent / f"{TABLES_FILE}.partial").write_bytes(b"what another process left")
    tier = loaded(remote, tmp_path)
    assert tier.versions == [published.old] and fetched(server, published.old) == ONCE
    assert sorted(path.name for path in copy.parent.iterdir()) == [IDS_FILE, TABLES_FILE]


def test_damage_in_the_store_is_named_and_leaves_no_copy(remote, published, tmp_path):
    uri = storage.join_uri(remote.version(published.old), TABLES_FILE)
    storage.write_bytes(uri, b"damaged")
    with pytest.raises(InputError, match=f"{uri}: 7 bytes that are not"):
        loaded(remote, tmp_path)
    assert not list(tmp_path.rglob(f"{TABLES_FILE}*"))
    storage.remove(uri)
    with pytest.raises(InputError, match=f"{uri}: .*absent"):
        loaded(remote, tmp_path)


def test_copies_of_versions_that_go_are_deleted_and_nothing_else(remote, published, tmp_path):
    kept = tmp_path / "lost+found"
    kept.mkdir()
    tier = loaded(remote, tmp_path)
    write_deployment(remote, "local", Deployment(current=published.new))
    tier.follow()
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([kept.name, published.new])
    (tmp_path / published.old).mkdir()
    loaded(remote, tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([kept.name, published.new])
