"""Loading a version: whatever is damaged is refused with one line, and nothing of it is used."""

from __future__ import annotations

import json
import random
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from components.common import storage
from components.common.digests import digest_bytes
from components.common.errors import InputError
from components.common.layout import Store
from components.serve.ranker_version import RankerVersion
from components.version.packed_tables import look_up_rows
from components.version.version import Version


def load(store, digest):
    version = Version.published(store, digest)
    return RankerVersion.load(version, 1), version.tables()


def test_whole_version_loads(published, fresh_store):
    ranker, tables = load(fresh_store, published.old)
    names = tables.features.served_columns
    rows = tables.look_up(names, np.zeros((2, len(names)), dtype=np.int64))
    specs = list(Version.published(fresh_store, published.old).manifest.tables)
    num_rows = len(look_up_rows(names, specs, tables.features))
    assert ranker.digest == published.old and rows.shape == (2, num_rows, tables.layout.row_bytes)


@pytest.mark.parametrize("name", ["manifest.json", "ranker.onnx", "tables.int4", "ids.bin"])
@pytest.mark.parametrize("kind", ["flip", "truncate", "empty", "absent", "of another version"])
def test_damaged_file_is_refused_and_named(published, fresh_store, name, kind):
    path = Path(fresh_store.version(published.old), name)
    content = bytearray(path.read_bytes())
    draw = random.Random(3)
    for _ in range(10):
        if kind == "flip":
            at = draw.randrange(len(content))
            path.write_bytes(content[:at] + bytes([content[at] ^ (1 + draw.randrange(255))]) + content[at + 1 :])
        elif kind == "truncate":
            path.write_bytes(content[: draw.randrange(len(content))])
        elif kind == "of another version":
            other = Path(fresh_store.version(published.new), name).read_bytes()
            # Arms that learn from the same days know the same ids.
            path.write_bytes(other if other != content else other[8:])
        else:
            path.write_bytes(b"") if kind == "empty" else path.unlink(missing_ok=True)
        with pytest.raises(InputError) as refused:
            load(fresh_store, published.old)
        assert published.old in str(refused.value) and "\n" not in str(refused.value)


def random_json(draw):
    kinds = [None, True, -1, 10**30, 0.5, "", "int64", [], {}, [1, "a"], {"a": {}}]
    return draw.choice(kinds)


def test_manifests_of_any_content_are_refused(published, tmp_path):
    """A value anywhere in the manifest becomes another: the version's name does not fit any more, or worse."""
    source = Path(published.store.version(published.old))
    target = tmp_path / "registry" / "versions" / published.old
    shutil.copytree(source, target)
    draw, manifest = random.Random(7), json.loads((source / "manifest.json").read_text())
    for _ in range(300):
        changed = json.loads(json.dumps(manifest))
        place = changed
        while True:
            keys = list(place) if isinstance(place, dict) else list(range(len(place)))
            key = draw.choice(keys)
            if isinstance(place[key], dict | list) and place[key] and draw.random() < 0.8:
                place = place[key]
                continue
            value = random_json(draw)
            if value == place[key]:
                continue
            place[key] = value
            break
        (target / "manifest.json").write_text(json.dumps(changed))
        with pytest.raises(InputError):
            load(Store(str(tmp_path)), published.old)
        # Without its name, it may fit its files; anything else is an error that can be shown.
        for use in (
            lambda: Version.open(str(target)).tables(),
            lambda: RankerVersion.load(Version.open(str(target)), 1),
        ):
            try:
                use()
            except InputError as error:
                assert str(error)


def test_version_under_another_name_is_refused(published, fresh_store):
    uri = fresh_store.version("0" * 64)
    shutil.copytree(fresh_store.version(published.old), uri)
    with pytest.raises(InputError, match=f"holds version {published.old[:12]}"):
        Version.published(fresh_store, "0" * 64)


def test_version_that_an_earlier_form_describes_is_served(published, fresh_store):
    """The first form held what is particular to a version as loose details, and no step's version."""
    path = Path(fresh_store.version(published.old), "manifest.json")
    values = json.loads(path.read_bytes())
    inputs, settings = {"checkpoint": values.pop("checkpoint_digest")}, values.pop("origin")["settings"]
    head = {name: values.pop(name) for name in ("kind", "files", "schema_version")}
    form_1 = head | {"schema_version": 1, "inputs": inputs, "settings": settings, "counts": {}}
    form_1["details"] = {"train": values.pop("recipe")} | values
    del form_1["details"]["lineage"]["recipe_digest"]
    path.write_text(json.dumps(form_1))
    digest = digest_bytes(path.read_bytes())
    path.parent.rename(path.parent.with_name(digest))
    ranker, tables = load(fresh_store, digest)
    assert ranker.digest == digest and tables.features.categorical_tables


def test_version_of_an_earlier_release_says_what_to_do(published, fresh_store):
    uri = storage.join_uri(fresh_store.version(published.old), "manifest.json")
    manifest = json.loads(storage.read_bytes(uri))
    del manifest["identifiers"]
    storage.write_bytes(uri, json.dumps(manifest).encode())
    with pytest.raises(InputError, match=r"manifest.json: identifiers: required"):
        Version.open(fresh_store.version(published.old))


def test_servers_need_nothing_but_their_lock():
    """They start where only the packages of requirements/serve.lock can be imported: no torch, no Beam, no kfp."""
    code = """
import re, sys
from importlib.metadata import packages_distributions

locked = {line.split("==")[0] for line in open("requirements/serve.lock")} | {"afterclick"}
owners = {name: {re.sub("[-_.]+", "-", owner).lower() for owner in found}
          for name, found in packages_distributions().items()}


class OnlyLocked:
    def find_spec(self, name, path=None, target=None):
        top = name.split(".")[0]
        if top in owners and not owners[top] & locked:
            raise ModuleNotFoundError(f"{top} is not in serve.lock", name=name)


sys.meta_path.insert(0, OnlyLocked())
import cli.serve, components.serve.embedding_server, components.serve.ranker_server
import components.serve.client, components.serve.rollout
assert "kserve" in sys.modules and "onnxruntime" in sys.modules and "torch" not in sys.modules
try:
    import torch
except ModuleNotFoundError:
    print("refused")
"""
    printed = subprocess.run([sys.executable, "-W", "ignore", "-c", code], capture_output=True, text=True, check=False)
    assert printed.stdout == "refused\n", printed.stderr


def test_serve_lock_is_part_of_the_cpu_lock():
    cpu, serve = (set(Path(f"requirements/{name}.lock").read_text().split()) for name in ("cpu", "serve"))
    assert serve <= cpu and not any(line.startswith(("torch", "fbgemm", "apache-beam", "kfp")) for line in serve)
