"""The Open Inference Protocol v2: KServe's messages and stubs, and the names that both tiers and their clients use."""

from __future__ import annotations

import sys

# KServe parses the process's own arguments when it is imported, and would take `--config` for one of its own.
_arguments, sys.argv = sys.argv, sys.argv[:1]
try:
    from kserve.protocol.grpc import grpc_predict_v2_pb2 as pb
    from kserve.protocol.grpc import grpc_predict_v2_pb2_grpc as pb_grpc
finally:
    sys.argv = _arguments

__all__ = [
    "CATEGORICAL",
    "HTTP_PORT",
    "RANKER_MODEL",
    "SEQUENCE",
    "STOPPING",
    "TABLES_MODEL",
    "channel_options",
    "pb",
    "pb_grpc",
]

RANKER_MODEL, TABLES_MODEL = "ranker", "tables"
# To a rollout, which waits for the server that comes after.
STOPPING = "this server was told to stop, or only starts"
# What a ranker's server says of itself: where its metrics are.
HTTP_PORT = "http_port"
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
