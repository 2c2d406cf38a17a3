"""An S3 server on loopback: moto's, which counts its requests and can fail a share of them.

Its own process, so that the steps of a run, processes themselves, reach it by address like any other service.
"""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
import threading
import urllib.request
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

from s3fs import S3FileSystem

BUCKET = "models"
_CONTROL = "/control"
CREDENTIALS = {"AWS_ACCESS_KEY_ID": "tests", "AWS_SECRET_ACCESS_KEY": "tests", "AWS_DEFAULT_REGION": "us-east-1"}


class _FaultyS3:
    """moto's application, with counts and faults."""

    def __init__(self) -> None:
        from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app

        self._app = DomainDispatcherApplication(create_backend_app)
        self._lock = threading.Lock()
        # moto looks for the file, and then writes it; of S3's writers that ask for none to be there, one gets through.
        self._creating = threading.Lock()
        self._counts: Counter[str] = Counter()
        self._fail_share = 0.0
        self._denies_writes = False
        self._random = random.Random(0)

    def __call__(self, environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        path = environ["PATH_INFO"]
        if path.startswith(_CONTROL):
            return self._control(environ, start_response)
        with self._lock:
            draw = self._random.random()
        is_failed, has_effect = draw < self._fail_share, draw < self._fail_share / 2
        status = ""

        def respond(given: str, headers: list[tuple[str, str]], exc_info: Any = None) -> Any:
            nonlocal status
            status = given[:3]
            return start_response(given, headers, exc_info)

        if self._denies_writes and environ["REQUEST_METHOD"] in ("PUT", "POST", "DELETE"):
            answer = _refuse("403 AccessDenied", respond)
        elif is_failed:
            if has_effect:
                list(self._answer(environ, lambda *_: None))
            answer = _refuse("503 SlowDown" if int(draw * 1e6) % 2 else "500 InternalError", respond)
        else:
            answer = self._answer(environ, respond)
        kind = "LIST" if "list-type" in environ.get("QUERY_STRING", "") else environ["REQUEST_METHOD"]
        with self._lock:
            self._counts[f"{kind} {status} {path}"] += 1
        return answer

    def _answer(self, environ: dict[str, Any], respond: Callable[..., Any]) -> Iterable[bytes]:
        with self._creating if "HTTP_IF_NONE_MATCH" in environ else nullcontext():
            return self._app(environ, respond)

    def _control(self, environ: dict[str, Any], start_response: Callable[..., Any]) -> list[bytes]:
        with self._lock:
            if environ["REQUEST_METHOD"] == "PUT":
                given = json.loads(environ["wsgi.input"].read(int(environ["CONTENT_LENGTH"])))
                self._fail_share, self._denies_writes = given["fail_share"], given["denies_writes"]
                self._counts.clear()
            body = json.dumps(self._counts).encode()
        start_response("200 OK", [("Content-Type", "application/json"), ("Content-Length", str(len(body)))])
        return [body]


def _refuse(status: str, respond: Callable[..., Any]) -> list[bytes]:
    body = f"<Error><Code>{status[4:]}</Code><Message>made to fail</Message></Error>".encode()
    respond(status, [("Content-Type", "application/xml"), ("Content-Length", str(len(body)))])
    return [body]


@dataclass(frozen=True)
class S3Server:
    """A running server.

    Attributes:
        endpoint: Its address.
        environment: What a process needs to use it.
    """

    endpoint: str

    @property
    def environment(self) -> dict[str, str]:
        """Variables that lead every client of a process here."""
        return {**CREDENTIALS, "AWS_ENDPOINT_URL": self.endpoint}

    def restart_counts(self, fail_share: float = 0.0, denies_writes: bool = False) -> None:
        """Count from zero, and from now on fail this share of requests, half of them after they had their effect."""
        body = json.dumps({"fail_share": fail_share, "denies_writes": denies_writes}).encode()
        urllib.request.urlopen(urllib.request.Request(self.endpoint + _CONTROL, body, method="PUT")).read()

    def counts(self) -> dict[str, int]:
        """Requests since then, by `method status path`."""
        with urllib.request.urlopen(self.endpoint + _CONTROL) as answer:
            return json.loads(answer.read())


@contextmanager
def s3_server(host: str = "127.0.0.1") -> Iterator[S3Server]:
    """A server with one bucket, `BUCKET`, for as long as the block lasts."""
    command = [sys.executable, "-m", "tests.s3", host]
    # A name of a Service, with dots, is not a bucket.
    environment = {**os.environ, "S3_IGNORE_SUBDOMAIN_BUCKETNAME": "true"}
    # A client of this process keeps the address of the server before.
    S3FileSystem.clear_instance_cache()
    with subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ) as process:
        try:
            assert process.stdout is not None
            server = S3Server(f"http://{host}:{process.stdout.readline().strip()}")
            urllib.request.urlopen(urllib.request.Request(f"{server.endpoint}/{BUCKET}", method="PUT")).read()
            yield server
        finally:
            process.kill()
            S3FileSystem.clear_instance_cache()


def main() -> None:
    """Serve until killed; prints the port."""
    from werkzeug.serving import WSGIRequestHandler, make_server

    class Quiet(WSGIRequestHandler):
        protocol_version = "HTTP/1.1"

        def log(self, type: str, message: str, *args: Any) -> None:
            pass

    server = make_server(sys.argv[1], 0, _FaultyS3(), threaded=True, request_handler=Quiet)
    print(server.port, flush=True)
    server.serve_forever()


if __name__ == "__main__":
    main()
