import uuid

import pyarrow as pa
import pytest

from components.common import storage
from components.common.errors import InputError
from components.common.manifests import (
    Manifest,
    find_manifest,
    is_current,
    read_manifest,
    verify_files,
    write_artifact,
)


@pytest.fixture(params=["local", "memory"])
def root(request, tmp_path):
    return str(tmp_path) if request.param == "local" else f"memory://{uuid.uuid4().hex}"


def write_hello(staged):
    storage.write_bytes(storage.join_uri(staged, "hello.txt"), b"hello")


def test_artifact_appears_whole(root):
    uri = storage.join_uri(root, "artifact")
    written = write_artifact(uri, Manifest(kind="greeting", inputs={"a": "1"}, counts={"rows": 1}), write_hello)
    assert read_manifest(uri, "greeting") == written
    assert [entry.name for entry in written.files] == ["hello.txt"]
    assert storage.list_names(root) == ["artifact"]
    verify_files(uri, written)


def test_failed_write_leaves_nothing_to_read(root):
    uri = storage.join_uri(root, "artifact")

    def fail(staged):
        write_hello(staged)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_artifact(uri, Manifest(kind="greeting"), fail)
    assert find_manifest(uri, "greeting") is None
    assert storage.list_names(root) == []
    write_artifact(uri, Manifest(kind="greeting"), write_hello)
    fs, path = storage.filesystem(root)
    assert [name.split("/")[-1] for name in fs.ls(path, detail=False)] == ["artifact"]


def test_rewriting_replaces_all_files(root):
    uri = storage.join_uri(root, "artifact")
    write_artifact(uri, Manifest(kind="greeting"), lambda s: storage.write_bytes(storage.join_uri(s, "old"), b"1"))
    write_artifact(uri, Manifest(kind="greeting"), write_hello)
    assert storage.list_names(uri) == ["hello.txt", "manifest.json"]


def test_damage_is_named(root):
    uri = storage.join_uri(root, "artifact")
    manifest = write_artifact(uri, Manifest(kind="greeting"), write_hello)
    storage.write_bytes(storage.join_uri(uri, "hello.txt"), b"hullo")
    with pytest.raises(InputError, match="hello.txt"):
        verify_files(uri, manifest)
    storage.remove(storage.join_uri(uri, "hello.txt"))
    with pytest.raises(InputError, match="absent"):
        verify_files(uri, manifest)


def test_other_kind_is_refused(root):
    uri = storage.join_uri(root, "artifact")
    write_artifact(uri, Manifest(kind="greeting"), write_hello)
    with pytest.raises(InputError, match="expected version"):
        read_manifest(uri, "version")


def test_is_current_compares_inputs_and_settings(root):
    uri = storage.join_uri(root, "artifact")
    write_artifact(uri, Manifest(kind="greeting", inputs={"a": "1"}, settings={"b": 2}), write_hello)
    assert is_current(uri, "greeting", {"a": "1"}, {"b": 2})
    assert not is_current(uri, "greeting", {"a": "2"}, {"b": 2})
    assert not is_current(uri, "greeting", {"a": "1"}, {"b": 3})


def test_parquet_round_trip_and_truncation(root):
    uri = storage.join_uri(root, "rows.parquet")
    table = pa.table({"a": list(range(1000))})
    storage.write_parquet(uri, table)
    assert storage.read_parquet(uri).equals(table)
    storage.write_bytes(uri, storage.read_bytes(uri)[:-20])
    with pytest.raises(InputError, match=r"rows\.parquet: not a readable Parquet file"):
        storage.read_parquet(uri)
    with pytest.raises(InputError, match="no such file"):
        storage.read_parquet(storage.join_uri(root, "absent.parquet"))
