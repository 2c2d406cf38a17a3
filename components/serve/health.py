"""Health and metrics of a server that has no other HTTP port."""

from __future__ import annotations

import threading
from collections.abc import Callable
from socketserver import ThreadingMixIn
from typing import Any
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

from prometheus_client import make_wsgi_app


def serve_health(port: int, is_ready: Callable[[], bool]) -> None:
    """Answer /metrics, /live and /ready over HTTP, in a thread."""
    metrics = make_wsgi_app()

    def answer(environ: Any, start_response: Any) -> Any:
        if environ["PATH_INFO"] == "/metrics":
            return metrics(environ, start_response)
        ready = environ["PATH_INFO"] == "/live" or (environ["PATH_INFO"] == "/ready" and is_ready())
        start_response("200 OK" if ready else "503 Service Unavailable", [("Content-Type", "application/json")])
        return [b'{"ready": true}' if ready else b'{"ready": false}']

    class Quiet(WSGIRequestHandler):
        timeout = 5

        def log_message(self, format: str, *args: Any) -> None:
            pass

    class Threaded(ThreadingMixIn, WSGIServer):
        daemon_threads = True

    server = make_server("", port, answer, server_class=Threaded, handler_class=Quiet)
    threading.Thread(target=server.serve_forever, daemon=True).start()
