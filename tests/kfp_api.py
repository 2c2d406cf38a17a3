"""As much of the API server of Kubeflow Pipelines as `afterclick deploy` talks to, in memory."""

from __future__ import annotations

import email
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from email.policy import HTTP
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

_PREFIX = "/apis/v2beta1/"
_IDS = {
    "experiments": "experiment_id",
    "pipelines": "pipeline_id",
    "versions": "pipeline_version_id",
    "recurringruns": "recurring_run_id",
    "runs": "run_id",
}
_LISTS = {"versions": "pipeline_versions", "recurringruns": "recurringRuns"}


@dataclass
class KfpApi:
    """A running server.

    Attributes:
        host: Its address.
        objects: What it holds, by kind.
        changes: Every request that changed something.
        tokens: What clients showed of themselves.
    """

    host: str = ""
    objects: dict[str, list[dict[str, Any]]] = field(default_factory=lambda: {kind: [] for kind in _IDS})
    changes: list[str] = field(default_factory=list)
    tokens: set[str] = field(default_factory=set)

    def add(self, kind: str, values: dict[str, Any]) -> dict[str, Any]:
        made = {**values, _IDS[kind]: f"{kind}-{sum(map(len, self.objects.values())) + len(self.changes)}"}
        self.objects[kind].append(made)
        self.changes.append(f"POST {kind} {values.get('display_name')}")
        return made


class _Handler(BaseHTTPRequestHandler):
    api: KfpApi

    def do_GET(self) -> None:
        kind, path, query = self._target()
        if kind not in _IDS:
            return self._answer({})
        items = self.api.objects[kind]
        if kind == "versions":
            items = [item for item in items if item["pipeline_id"] == path[1]]
        elif len(path) > 1:
            return self._answer(next(item for item in items if item[_IDS[kind]] == path[1]))
        if "filter" in query:
            wanted = json.loads(query["filter"])["predicates"][0]
            name = wanted.get("stringValue", wanted.get("string_value"))
            items = [item for item in items if item["display_name"] == name]
        self._answer({_LISTS.get(kind, kind): items, "total_size": len(items)})

    def do_POST(self) -> None:
        kind, path, query = self._target()
        body = self.rfile.read(int(self.headers["Content-Length"] or 0))
        if path[-1].startswith("upload"):
            head = f"Content-Type: {self.headers['Content-Type']}\r\n\r\n".encode()
            file = next(email.message_from_bytes(head + body, policy=HTTP).iter_parts()).get_content()
            text = file if isinstance(file, str) else file.decode()
            is_version = path[-1] == "upload_version"
            values = {"display_name": query["name"], "file": text, "pipeline_id": query.get("pipelineid")}
            return self._answer(self.api.add("versions" if is_version else "pipelines", values))
        self._answer(self.api.add(kind, json.loads(body)))

    def do_DELETE(self) -> None:
        kind, path, _ = self._target()
        self.api.changes.append(f"DELETE {kind} {path[1]}")
        self.api.objects[kind] = [item for item in self.api.objects[kind] if item[_IDS[kind]] != path[1]]
        self._answer({})

    def _target(self) -> tuple[str, list[str], dict[str, str]]:
        self.api.tokens |= {self.headers["Authorization"] or ""}
        url = urlsplit(self.path)
        path = url.path.removeprefix(_PREFIX).split("/")
        kind = "versions" if path[-1] == "versions" else path[0]
        return kind, path, {name: values[0] for name, values in parse_qs(url.query).items()}

    def _answer(self, values: dict[str, Any]) -> None:
        body = json.dumps(values).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        pass


@contextmanager
def kfp_api(host: str = "127.0.0.1") -> Iterator[KfpApi]:
    """A server for as long as the block lasts."""
    api = KfpApi()
    server = ThreadingHTTPServer((host, 0), type("Handler", (_Handler,), {"api": api}))
    api.host = f"http://{host}:{server.server_port}"
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield api
    finally:
        server.shutdown()
        server.server_close()
