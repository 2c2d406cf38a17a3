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

__all__ = ["CATEGORICAL", "RANKER_MODEL", "SEQUENCE", "TABLES_MODEL", "channel_options", "pb", "pb_grpc"]

RANKER_MODEL, TABLES_MODEL = "ranker", "tables"
# Inputs of the tables; an output adds `_rows`.
CATEGORICAL, SEQUENCE = "categorical", "sequence"


def channel_options(max_message_bytes: int) -> list[tuple[str, object]]:
    """Options of every client's gRPC channel."""
    return [
        ("grpc.max_receive_message_length", max_message_bytes),
        ("grpc.max_send_message_length", max_message_bytes),
        # A host that vanished closes no connection: unanswered pings find it out while calls wait.
        ("grpc.keepalive_time_ms", 10_000),
        ("grpc.keepalive_timeout_ms", 1_000),
        ("grpc.initial_reconnect_backoff_ms", 50),
        ("grpc.min_reconnect_backoff_ms", 50),
        ("grpc.max_reconnect_backoff_ms", 500),
    ]
