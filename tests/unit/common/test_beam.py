"""What is said of a Beam runner's options before anything is handed to it."""

from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest

from components.common.beam import open_pipeline
from components.common.errors import InputError


def closed_port() -> int:
    with socket.socket() as reserved:
        reserved.bind(("127.0.0.1", 0))
        return reserved.getsockname()[1]


@contextmanager
def flink_master(answer: dict) -> Iterator[str]:
    """A REST interface that says of itself what Flink's says."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = json.dumps(answer).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    server = HTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()


@pytest.mark.parametrize(
    ("options", "named"),
    [
        (["--runner=PortableRunner", "--job_endpoint=127.0.0.1:{port}"], "job_endpoint=127.0.0.1"),
        (["--runner=FlinkRunner", "--flink_master=127.0.0.1:{port}"], "flink_master=127.0.0.1"),
        (
            ["--runner=FnApiRunner", "--environment_type=EXTERNAL", "--environment_config=localhost:{port}"],
            "environment_config=localhost",
        ),
        (["--runner=PortableRunner", "--job_endpoint=no.such.host.example:1"], "job_endpoint=no.such.host"),
        (["--runner=PortableRunner", "--job_endpoint=nonsense"], "job_endpoint=nonsense"),
    ],
)
def test_what_does_not_answer_is_named_at_once(options, named):
    started = time.monotonic()
    with pytest.raises(InputError, match=f"beam_options: --{named}.* does not answer"):
        open_pipeline([option.format(port=closed_port()) for option in options])
    assert time.monotonic() - started < 60


def test_flink_of_a_version_without_a_runner_is_refused():
    with flink_master({"flink-version": "2.0.0"}) as master, pytest.raises(InputError, match="is Flink 2.0.0; Beam 2"):
        open_pipeline(["--runner=FlinkRunner", f"--flink_master={master}"])
    with flink_master({"flink-version": "1.20.3"}) as master:
        open_pipeline(["--runner=FlinkRunner", f"--flink_master={master}"])


def test_what_is_no_flink_is_refused():
    with flink_master({}) as master, pytest.raises(InputError, match="not as Flink's REST interface does"):
        open_pipeline(["--runner=FlinkRunner", f"--flink_master={master}"])


def test_worker_pool_beside_a_far_task_manager_is_not_asked_for_here():
    """There localhost is another host."""
    with flink_master({"flink-version": "1.20.3"}) as master:
        port = master.rpartition(":")[2]
        options = [f"--flink_master={socket.gethostname()}:{port}", "--environment_type=EXTERNAL"]
        try:
            open_pipeline(["--runner=FlinkRunner", *options, f"--environment_config=localhost:{closed_port()}"])
        except InputError as error:
            # Of this host's own name nothing need listen on loopback.
            assert "flink_master" in str(error)
