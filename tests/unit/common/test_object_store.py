"""Stores on S3: what they cost, what they say when they refuse, and what a service's own failures change: nothing."""

from __future__ import annotations

import os
import subprocess
import sys
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from components.common import filesystems, storage
from components.common.errors import InputError
from components.common.manifests import FileEntry, describe_file, find_current, find_manifest, verified_content
from tests.s3 import BUCKET, CREDENTIALS, S3Server, s3_server
from tests.unit.common.test_storage import STEP, Greeting, greeting, write_artifact, write_hello


@pytest.fixture(scope="module")
def server() -> Iterator[S3Server]:
    with s3_server() as running, pytest.MonkeyPatch.context() as patch:
        for name, value in running.environment.items():
            patch.setenv(name, value)
        yield running


@pytest.fixture
def root(server) -> Iterator[str]:
    server.restart_counts()
    yield f"s3://{BUCKET}/{uuid.uuid4().hex}/a place & more"
    server.restart_counts()


def asked(server: S3Server) -> list[str]:
    """Methods and statuses of all requests since the last time."""
    counts = server.counts()
    server.restart_counts()
    return sorted(" ".join(name.split()[:2]) for name, count in counts.items() for _ in range(count))


def test_requests_are_as_few_as_can_be(server, root):
    uri = storage.join_uri(root, "artifact")
    assert find_manifest(uri, Greeting) is None
    assert asked(server) == ["GET 404"]
    written = write_artifact(uri, greeting(1), write_hello)
    # Nothing is there, of which s3fs makes sure; file, listing, reading back, manifest.
    assert asked(server) == ["GET 200", "HEAD 404", "LIST 200", "LIST 200", "LIST 200", "PUT 200", "PUT 200"]
    assert find_current(uri, Greeting, STEP.origin()) == written
    assert asked(server) == ["GET 200", "LIST 200"]
    assert verified_content(uri, written.files[0]) == (f"{uri}/hello.txt", b"hello")
    assert asked(server) == ["GET 200"]
    assert storage.finished_names(root) == ["artifact"]
    assert asked(server) == ["LIST 200"]


def test_listing_is_of_this_moment(server, root):
    storage.write_bytes(storage.join_uri(root, "a"), b"1")
    assert storage.list_names(root) == ["a"]
    code = f"from components.common import storage; storage.write_bytes({storage.join_uri(root, 'b')!r}, b'2')"
    subprocess.run([sys.executable, "-c", code], check=True, env={**os.environ, **server.environment})
    assert storage.list_names(root) == ["a", "b"] and storage.list_sizes(root) == {"a": 1, "b": 1}
    storage.remove(root)
    assert storage.list_names(root) == [] and not storage.exists(storage.join_uri(root, "a"))


def test_service_that_fails_now_and_then_changes_nothing(server, root):
    server.restart_counts(fail_share=0.2)
    for number in range(6):
        uri = storage.join_uri(root, f"artifact-{number}")
        written = write_artifact(uri, greeting(number), write_hello)
        assert find_current(uri, Greeting, STEP.origin()) == written
    assert len(storage.finished_names(root)) == 6
    assert [name for name in asked(server) if name.split()[1] in ("500", "503")]


def test_one_of_many_creates_a_file(server, root):
    server.restart_counts(fail_share=0.2)
    for number in range(3):
        uri = storage.join_uri(root, f"lease-{number}")
        with ThreadPoolExecutor(4) as threads:
            made = list(threads.map(lambda name, uri=uri: storage.create_bytes(uri, name), [b"a", b"b", b"c", b"d"]))
        assert sum(made) == 1
        assert storage.read_bytes(uri) == [b"a", b"b", b"c", b"d"][made.index(True)]


def test_absent_bucket_is_named(server):
    with pytest.raises(InputError, match=r"s3://no-such-place/store/a: there is no such bucket; make it, or correct"):
        storage.write_bytes("s3://no-such-place/store/a", b"")
    with pytest.raises(InputError, match="no such bucket"):
        storage.list_names("s3://no-such-place/store")
    with pytest.raises(InputError, match="no such bucket"):
        storage.find_bytes("s3://no-such-place/store/a")


def test_denied_write_names_the_file_and_the_remedy(server, root):
    server.restart_counts(denies_writes=True)
    with pytest.raises(InputError, match=r"more/a: cannot be written \(.*\); give this process credentials that may"):
        storage.write_bytes(storage.join_uri(root, "a"), b"1")
    assert storage.list_names(root) == []


def test_process_without_credentials_is_told_so(server, root):
    code = f"from components.common import storage; storage.list_names({root!r})"
    environment = {name: value for name, value in os.environ.items() if name not in CREDENTIALS}
    # Otherwise the machine's own would be asked for, far away.
    environment |= {"AWS_EC2_METADATA_DISABLED": "true", "HOME": "/nonexistent"}
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=False)
    assert "cannot be listed (Unable to locate credentials); give this process credentials" in said.stderr


def test_service_that_is_gone_names_file_and_reason(server, root, monkeypatch):
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "2")
    filesystems.filesystem(root)[0].clear_instance_cache()
    with pytest.raises(OSError, match=r"a place & more/a: cannot be read \(Could not connect to the endpoint"):
        storage.read_bytes(storage.join_uri(root, "a"))
    filesystems.filesystem(root)[0].clear_instance_cache()


def test_large_file_is_measured_in_pieces(server, root, monkeypatch):
    monkeypatch.setattr(storage, "WHOLE_BYTES", 10)
    content = os.urandom(100_000)
    storage.write_bytes(storage.join_uri(root, "large"), content)
    entry = describe_file(root, "large")
    assert (
        entry
        == describe_file(root, "large", len(content))
        == FileEntry(name="large", num_bytes=100_000, sha256=entry.sha256)
    )
    assert verified_content(root, entry) == (storage.join_uri(root, "large"), None)
