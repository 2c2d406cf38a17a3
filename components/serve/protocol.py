"""The Open Inference Protocol v2: KServe's messages and stubs, and the names that both tiers and their clients use."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from typing import Any

_MESSAGES = "kserve.protocol.grpc.grpc_predict_v2_pb2"


def _load_messages() -> Any:
    """KServe's file of messages without KServe itself, whose packages import its servers: clients need none of them."""
    if _MESSAGES not in sys.modules:
        package = importlib.util.find_spec("kserve")
        folders = package and package.submodule_search_locations
        if not folders:
            raise ModuleNotFoundError("kserve, whose messages servers and clients speak, is not installed")
        path = Path(folders[0], *_MESSAGES.split(".")[1:]).with_suffix(".py")
        spec = importlib.util.spec_from_file_location(_MESSAGES, path)
        assert spec is not None and spec.loader is not None
        # Under its own name, so that KServe, where it is imported later, takes the same classes.
        sys.modules[_MESSAGES] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(sys.modules[_MESSAGES])
    return sys.modules[_MESSAGES]


pb = _load_messages()


def __getattr__(name: str) -> Any:
    """KServe's stubs, `pb_grpc`, imported with KServe when they are first used."""
    if name != "pb_grpc":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    # KServe parses the process's own arguments when it is imported, and would take `--config` for one of its own.
    arguments, sys.argv = sys.argv, sys.argv[:1]
    try:
        from kserve.protocol.grpc import grpc_predict_v2_pb2_grpc
    finally:
        sys.argv = arguments
    return grpc_predict_v2_pb2_grpc


__all__ = [
    "CATEGORICAL",
    "METRICS_AT",
    "ONLINE_MODEL",
    "RANKER_MODEL",
    "SEQUENCE",
    "STOPPING",
    "TABLES_MODEL",
    "channel_options",
    "pb",
]

RANKER_MODEL, TABLES_MODEL, ONLINE_MODEL = "ranker", "tables", "online_features"
# To a rollout, which waits for the server that comes after.
STOPPING = "this server was told to stop, or only starts"
# What a ranker's server says of itself: where its metrics are, `http:PORT` or `https:PORT`.
METRICS_AT = "metrics"
# Inputs of the tables; an output adds `_rows`.
CATEGORICAL, SEQUENCE = "categorical", "sequence"


def channel_options() -> list[tuple[str, object]]:
    """Options of every client's gRPC channel."""
    return [
        # What is too large is for the server to say.
        ("grpc.max_receive_message_length", -1),
        ("grpc.max_send_message_length", -1),
        # A host that vanished closes no connection: unanswered pings find it out while calls wait.
        ("grpc.keepalive_time_ms", 10_000),
        ("grpc.keepalive_timeout_ms", 1_000),
        ("grpc.initial_reconnect_backoff_ms", 50),
        ("grpc.min_reconnect_backoff_ms", 50),
        ("grpc.max_reconnect_backoff_ms", 500),
        # Servers that are replaced come back at other addresses.
        ("grpc.dns_min_time_between_resolutions_ms", 1_000),
    ]
