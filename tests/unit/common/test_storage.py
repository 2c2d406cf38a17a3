import json
import subprocess
import sys
import uuid
from datetime import date
from typing import ClassVar

import fsspec
import pyarrow as pa
import pytest

from components.common import filesystems, parquet_files, storage
from components.common.errors import InputError
from components.common.layout import Store
from components.common.manifests import (
    Manifest,
    Step,
    find_current,
    find_manifest,
    read_manifest,
    verify_files,
    write_artifact,
)

STEP = Step("greet")


class Greeting(Manifest):
    kind: ClassVar[str] = "greeting"

    rows: int = 0


class LaterGreeting(Greeting):
    """The same kind, two releases later: it reads what the release before wrote, but not the first one's."""

    schema_version: ClassVar[int] = 3

    words: int

    @classmethod
    def upgraded(cls, values, schema_version):
        return {**values, "words": 1} if schema_version == 2 else None


class Farewell(Manifest):
    kind: ClassVar[str] = "farewell"


@pytest.fixture(params=["local", "memory"])
def root(request, tmp_path):
    return str(tmp_path) if request.param == "local" else f"memory://{uuid.uuid4().hex}"


def greeting(rows=0, inputs=None, settings=None):
    return Greeting(origin=STEP.origin(inputs, settings), rows=rows)


def write_hello(folder):
    storage.write_bytes(storage.join_uri(folder, "hello.txt"), b"hello")


def test_artifact_appears_whole(root):
    uri = storage.join_uri(root, "artifact")
    written = write_artifact(uri, greeting(1, {"a": "1"}), write_hello)
    assert read_manifest(uri, Greeting) == written and written.rows == 1
    assert [entry.name for entry in written.files] == ["hello.txt"]
    assert storage.list_names(root) == storage.finished_names(root) == ["artifact"]
    verify_files(uri, written)


def test_failed_write_leaves_nothing_to_read(root):
    uri = storage.join_uri(root, "artifact")

    def fail(folder):
        write_hello(folder)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_artifact(uri, greeting(), fail)
    assert find_manifest(uri, Greeting) is None
    assert storage.finished_names(root) == []
    write_artifact(uri, greeting(), write_hello)
    fs, path = filesystems.filesystem(root)
    assert [name.split("/")[-1] for name in fs.ls(path, detail=False)] == ["artifact"]


def test_rewriting_replaces_all_files(root):
    uri = storage.join_uri(root, "artifact")
    write_artifact(uri, greeting(), lambda folder: storage.write_bytes(storage.join_uri(folder, "old"), b"1"))
    write_artifact(uri, greeting(), write_hello)
    assert storage.list_names(uri) == ["hello.txt", "manifest.json"]


def test_directory_that_is_made_again_does_not_exist_meanwhile_on_object_stores():
    """There is no rename there: what was there goes first, its manifest before anything else."""
    uri = f"memory://{uuid.uuid4().hex}/artifact"
    write_artifact(uri, greeting(), write_hello)
    with storage.new_directory(uri) as folder:
        assert folder == uri and find_manifest(uri, Greeting) is None and storage.list_names(uri) == []
        storage.write_bytes(storage.join_uri(folder, storage.MANIFEST_NAME), greeting().to_bytes())


def test_day_that_is_half_copied_is_no_day(root):
    """Object stores have no rename: a checkpoint's files are there before it is, and stay when its writer is killed."""
    store = Store(root)
    for day in (date(2026, 1, 1), date(2026, 1, 2)):
        uri = store.checkpoint("baseline", day)
        write_artifact(
            uri, Greeting(origin=STEP.origin()), lambda folder: storage.write_bytes(f"{folder}/weights", b"w")
        )
    storage.write_bytes(f"{store.checkpoint('baseline', date(2026, 1, 3))}/weights", b"w")
    storage.remove(f"{store.checkpoint('baseline', date(2026, 1, 2))}/{storage.MANIFEST_NAME}")
    assert store.checkpoint_days("baseline") == [date(2026, 1, 1)]


def test_file_is_put_once_on_object_stores(monkeypatch):
    root = f"memory://{uuid.uuid4().hex}"
    fs, _ = filesystems.filesystem(root)
    calls = []
    for name in ("pipe_file", "mv", "copy", "cp_file", "rm", "info", "exists"):
        original = getattr(fs, name)
        monkeypatch.setattr(
            fs, name, lambda *given, _name=name, _original=original, **named: calls.append(_name) or _original(*given)
        )
    storage.write_bytes(storage.join_uri(root, "folder", "file"), b"content")
    assert calls == ["pipe_file"]
    monkeypatch.undo()
    assert storage.read_bytes(storage.join_uri(root, "folder", "file")) == b"content"


def test_damage_is_named(root):
    uri = storage.join_uri(root, "artifact")
    manifest = write_artifact(uri, greeting(), write_hello)
    storage.write_bytes(storage.join_uri(uri, "hello.txt"), b"hullo")
    with pytest.raises(InputError, match="hello.txt"):
        verify_files(uri, manifest)
    storage.remove(storage.join_uri(uri, "hello.txt"))
    with pytest.raises(InputError, match="absent"):
        verify_files(uri, manifest)


def test_other_kind_is_refused(root):
    uri = storage.join_uri(root, "artifact")
    write_artifact(uri, greeting(), write_hello)
    with pytest.raises(InputError, match="describes greeting, expected farewell"):
        read_manifest(uri, Farewell)


@pytest.mark.parametrize(
    "content", [b"", b"{", b"[]", b"3", b'{"kind": "greeting"}', b'{"kind": 1, "schema_version": "x"}']
)
def test_what_is_no_manifest_is_named_with_its_remedy(root, content):
    uri = storage.join_uri(root, "artifact")
    storage.write_bytes(storage.join_uri(uri, storage.MANIFEST_NAME), content)
    with pytest.raises(InputError, match=r"manifest\.json: .*delete .*artifact and run the step again"):
        find_manifest(uri, Greeting)


def test_another_release_s_manifest_is_not_current_and_no_error(root):
    uri = storage.join_uri(root, "artifact")
    manifest = write_artifact(uri, greeting(1), write_hello)
    assert find_manifest(uri, LaterGreeting) is None
    assert find_current(uri, LaterGreeting, manifest.origin) is None
    with pytest.raises(InputError, match="this release does not read greeting here; run the step that writes it"):
        read_manifest(uri, LaterGreeting)
    # And back: an older release finds a newer one's.
    write_artifact(uri, LaterGreeting(origin=STEP.origin(), words=2), write_hello)
    assert find_manifest(uri, Greeting) is None


def test_manifest_of_the_release_before_is_read_when_it_can_be(root):
    uri = storage.join_uri(root, "artifact")
    manifest = write_artifact(uri, greeting(1), write_hello)
    path = storage.join_uri(uri, storage.MANIFEST_NAME)
    storage.write_bytes(path, json.dumps(json.loads(storage.read_bytes(path)) | {"schema_version": 2}).encode())
    upgraded = find_current(uri, LaterGreeting, manifest.origin)
    assert upgraded is not None and upgraded.words == 1 and upgraded.rows == 1 and upgraded.files == manifest.files


def test_current_is_what_was_made_from_the_same_by_the_same_version(root):
    uri = storage.join_uri(root, "artifact")
    written = write_artifact(uri, greeting(0, {"a": "1"}, {"b": 2}), write_hello)

    def current(step=STEP, a="1", b=2):
        return find_current(uri, Greeting, step.origin({"a": a}, {"b": b}))

    assert current() == written
    assert current(a="2") is None and current(b=3) is None
    assert current(step=Step("greet", version=2)) is None and current(step=Step("wave")) is None
    storage.remove(storage.join_uri(uri, "hello.txt"))
    assert current() is None


def test_parquet_round_trip_and_truncation(root):
    uri = storage.join_uri(root, "rows.parquet")
    table = pa.table({"a": list(range(1000))})
    parquet_files.write_parquet(uri, table)
    assert parquet_files.read_parquet(uri).equals(table)
    storage.write_bytes(uri, storage.read_bytes(uri)[:-20])
    with pytest.raises(InputError, match=r"rows\.parquet: not a readable Parquet file"):
        parquet_files.read_parquet(uri)
    with pytest.raises(InputError, match="no such file"):
        parquet_files.read_parquet(storage.join_uri(root, "absent.parquet"))


_WRITES = {
    "bytes": "storage.write_bytes(uri, b'x' * 100_000)",
    "parquet": "parquet_files.write_parquet(uri, pa.table({'value': np.random.default_rng(0).random(100_000)}))",
    "arrow": "shards.write_groups(uri, pa.table({'value': np.arange(100_000)}), np.zeros(100_000, dtype=np.int64))",
}


@pytest.mark.parametrize("kind", _WRITES)
def test_full_disk_is_an_error_that_names_the_file(tmp_path, kind):
    """A limit on the size of files stands for the disk: the system's error is of the same kind."""
    uri = str(tmp_path / "folder" / "file")
    code = f"""
import resource
import numpy as np
import pyarrow as pa
from components.common import parquet_files, storage
from components.join import shards

uri, limits = {uri!r}, resource.getrlimit(resource.RLIMIT_FSIZE)
def write():
    {_WRITES[kind]}
resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, limits[1]))
try:
    write()
except OSError as error:
    print(error)
resource.setrlimit(resource.RLIMIT_FSIZE, limits)
write()
"""
    printed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert printed.returncode == 0, printed.stderr
    said = f"{uri}: cannot be written (File too large); make room and give the same command again"
    assert printed.stdout.strip() == said
    assert storage.measure(uri)[0] > 20_000


@pytest.mark.parametrize(
    "uri", ["/a/b/", "/", "//a//b", "/a/../b", "a", "a/b//", "./a", "..", "~/a", ".hidden/a", "/a b/c*", "/a:b/c"]
)
def test_local_paths_are_those_of_fsspec(uri):
    found, expected = filesystems.filesystem(uri), fsspec.url_to_fs(uri)
    assert found[0] is expected[0] and found[1] == expected[1]
