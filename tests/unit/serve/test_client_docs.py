"""The examples of docs/client.md, run as they stand against real servers; only addresses are put in."""

from __future__ import annotations

import contextlib
import io
import json
import re
import subprocess
from pathlib import Path

import grpc
import numpy as np
import pytest

from components.features.objectives import DEFAULT_SERVED
from components.serve.tensors import rest_body
from tests.certificates import Authority
from tests.relay import Relay
from tests.serving import stub_of

PAGE = Path("docs/client.md").resolve()


def blocks(language):
    return re.findall(rf"^```{language}\n(.*?)^```$", PAGE.read_text(), re.M | re.S)


@pytest.fixture
def folder(tmp_path, published, monkeypatch):
    """With the files that the examples read."""
    (tmp_path / "request.json").write_text(json.dumps(published.requests[0]))
    (tmp_path / "body.json").write_text(json.dumps(rest_body(published.tensors[0])))
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def secured(folder, servers):
    """A server that wants a certificate, with the files of the example."""
    authority = Authority("authority")
    certificate, key = authority.issue()
    for name, content in (
        ("ca.crt", authority.pem),
        ("tls.crt", certificate),
        ("tls.key", key),
        ("token", b"a secret\n"),
    ):
        (folder / name).write_bytes(content)
    credentials = grpc.ssl_server_credentials([(key, certificate)], authority.pem, require_client_auth=True)
    with Relay(stub_of(servers[1]), credentials) as found:
        yield found


def test_python_examples_run_in_their_order(servers, secured, published):
    addresses = dict.fromkeys(("localhost:8081", "ranker-0:8081", "ranker-1:8081"), servers[1].address)
    addresses["ranker.example:8443"] = secured.address
    found = blocks("python")
    assert len(found) == 7
    expected, names, printed = published.expected[published.old][0], {}, io.StringIO()
    for block in found:
        names.pop("ranking", None)
        for name, address in addresses.items():
            block = block.replace(name, address)
        with contextlib.redirect_stdout(printed):
            exec(compile(block, str(PAGE), "exec"), names)
        for ranking in (*names.pop("rankings", ()), *([names["ranking"]] if "ranking" in names else ())):
            probabilities = np.stack([ranking.probabilities[name] for name in DEFAULT_SERVED])
            assert np.abs(probabilities - expected).max() <= 1e-6
    said = re.search(r"print\(error\)  # (.*)", PAGE.read_text())[1]
    assert said in printed.getvalue() and "candidates item_id 0 seven" in printed.getvalue()
    assert names["scored"]["checkout"].to_pylist() == names["candidates"]["checkout"].tolist()
    assert {metadata["authorization"] for *_, metadata in secured.seen} == {"Bearer a secret"}


def test_curl_examples_run(servers, folder, published):
    found = blocks("bash")
    assert len(found) == 3
    answers = []
    for block in found:
        command = block.replace("localhost:8080", f"localhost:{servers[1].http_port}")
        run = subprocess.run(["bash", "-euo", "pipefail", "-c", command], capture_output=True, text=True, check=False)
        assert run.returncode == 0, run.stderr
        answers.append(run.stdout)
    assert json.loads(answers[1])["model_version"] == published.old
    said = re.search(r"cat refused.json    # (.*)", found[2])[1]
    assert json.loads(answers[2]) == json.loads(said)
    assert json.loads(Path("openapi.json").read_text())["openapi"] == "3.1.0"
    assert "max_candidates=300" in answers[0] and published.old in answers[0]
