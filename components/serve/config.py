"""What the two tiers' servers are set to."""

from __future__ import annotations

import socket

from pydantic import Field

from components.common.config import Config
from components.common.errors import InputError
from components.version.request import Limits

MAX_MESSAGE_BYTES = 16 * 2**20
EMBEDDING_GRPC_PORT, EMBEDDING_HTTP_PORT = 9000, 9080
RANKER_GRPC_PORT, RANKER_HTTP_PORT = 8081, 8080


class TierConfig(Config):
    """Settings that both tiers share."""

    store_uri: str = Field(description="the store whose registry holds the versions")
    deployment: str = Field("local", pattern=r"^[a-z0-9][a-z0-9-]*$", description="whose versions to serve")
    grpc_port: int = Field(ge=0, le=65535)
    http_port: int = Field(ge=0, le=65535, description="health and metrics")
    max_message_bytes: int = Field(MAX_MESSAGE_BYTES, ge=2**16)
    max_requests: int = Field(64, ge=1, description="at one time; more are refused with RESOURCE_EXHAUSTED")
    unready_seconds: float = Field(
        5.0, ge=0, description="after SIGTERM, how long new requests are still answered while it says it is not ready"
    )
    grace_seconds: float = Field(
        10.0, ge=0, description="how long requests may take to end after that, when no new ones are taken"
    )
    connection_seconds: float = Field(
        60.0,
        ge=1,
        description="that a gRPC connection lasts; then its client connects anew",
    )

    @property
    def stated_limits(self) -> list[str]:
        """Limits of requests as the metadata of a server has them: `name=value`."""
        return [f"{name}={value}" for name, value in self if name.startswith("max_")]

    @property
    def grpc_options(self) -> list[tuple[str, object]]:
        """Options of its gRPC server."""
        return [
            ("grpc.max_receive_message_length", self.max_message_bytes),
            ("grpc.max_send_message_length", self.max_message_bytes),
            ("grpc.so_reuseport", 0),
            ("grpc.http2.min_ping_interval_without_data_ms", 5_000),
            # Only when it connects does a client look for new addresses, or a Service choose among its pods.
            ("grpc.max_connection_age_ms", round(self.connection_seconds * 1000)),
        ]

    def refusal(self, deployment: str) -> str:
        """What a server says when it is told to follow another deployment than its own."""
        return f"{deployment[:64]!r} is not this server's deployment, which is {self.deployment!r} of {self.store_uri}"

    def check_ports(self) -> None:
        """Check that nobody listens on the ports.

        Raises:
            InputError: Naming the one that is in use.
        """
        for name in ("grpc_port", "http_port"):
            port = getattr(self, name)
            with socket.socket() as probe:
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                try:
                    probe.bind(("", port))
                except OSError as error:
                    raise InputError(
                        f"port {port} is in use; choose another with --{name.replace('_', '-')}"
                    ) from error


class EmbeddingTierConfig(TierConfig):
    """Settings of the servers that hold tables."""

    grpc_port: int = Field(EMBEDDING_GRPC_PORT, ge=0, le=65535)
    http_port: int = Field(EMBEDDING_HTTP_PORT, ge=0, le=65535)
    threads: int = Field(4, ge=1, description="that answer requests")
    max_ids: int = Field(500_000, ge=1, description="of one request")
    copies_folder: str = Field(
        "",
        description="local, for a remote store's tables, of this server only; empty: they are read into memory",
    )


class RankerTierConfig(TierConfig):
    """Settings of the servers that run rankers."""

    grpc_port: int = Field(RANKER_GRPC_PORT, ge=0, le=65535)
    http_port: int = Field(RANKER_HTTP_PORT, ge=0, le=65535)
    embedding_address: str = Field(
        "", pattern=r"^$|^[^/]+:\d+$", description="host:port of the embedding tier; empty: tables in this process"
    )
    threads: int = Field(2, ge=1, description="requests that are computed at one time")
    session_threads: int = Field(1, ge=1, description="of ONNX Runtime, for one request")
    require_gpu: bool = Field(False, description="do not start, or route to a version, on the CPU")
    max_candidates: int = Field(2000, ge=1)
    max_actions: int = Field(20_000, ge=0)
    ignore_unknown_inputs: bool = Field(False, description="for callers that already send the next version's columns")
    look_up_seconds: float = Field(0.5, gt=0, description="time-out of one look-up, with its retries")
    request_seconds: float = Field(2.0, gt=0, description="time-out of one request")
    drain_seconds: float = Field(30.0, ge=0, description="how long a retired version's requests may take to end")

    @property
    def limits(self) -> Limits:
        """The limits of one request."""
        return Limits(self.max_candidates, self.max_actions, self.ignore_unknown_inputs)
