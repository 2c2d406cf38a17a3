"""What the two tiers' servers are set to."""

from __future__ import annotations

import socket
from typing import Annotated, Any, Literal, Self

from pydantic import Field, field_validator, model_validator

from components.common.config import Config
from components.common.deployments import DEPLOYMENT_NAME
from components.common.errors import InputError
from components.version.request import Limits

MAX_MESSAGE_BYTES = 16 * 2**20
EMBEDDING_GRPC_PORT, EMBEDDING_HTTP_PORT = 9000, 9080
RANKER_GRPC_PORT, RANKER_HTTP_PORT = 8081, 8080


class TierConfig(Config):
    """Settings that both tiers share."""

    store_uri: str = Field(description="the store whose registry holds the versions")
    deployment: str = Field("local", pattern=f"^{DEPLOYMENT_NAME}$", description="whose versions to serve")
    grpc_port: int = Field(ge=0, le=65535)
    http_port: int = Field(ge=0, le=65535, description="health and metrics")
    tls_certificate: str = Field("", description="file of the server's certificate chain; empty: nothing is encrypted")
    tls_key: str = Field("", description="file of its key")
    tls_client_ca: str = Field("", description="file of the authorities that clients' certificates must be of")
    control_token: str = Field("", description="file of the token of calls that change what is served; empty: open")
    max_message_bytes: int = Field(MAX_MESSAGE_BYTES, ge=2**16)
    max_requests: int = Field(64, ge=1, description="at one time; more are refused with RESOURCE_EXHAUSTED")
    online_features: bool = Field(
        False, description="complete requests with the store's online features (docs/serving.md); set in both tiers"
    )
    online_seconds: float = Field(60.0, gt=0, description="between looks for newer ones, where the tables are")
    unready_seconds: float = Field(
        5.0, ge=0, description="after SIGTERM, how long new requests are still answered while it says it is not ready"
    )
    grace_seconds: float = Field(
        10.0, ge=0, description="how long requests may take to end after that, when no new ones are taken"
    )
    connection_seconds: float = Field(
        60.0, ge=1, description="that a gRPC connection lasts; then its client connects anew"
    )

    @property
    def stated_limits(self) -> list[str]:
        """What callers must know, as the metadata of a server has it: `name=value`."""
        return [f"{name}={value}" for name, value in self if name.startswith(("max_", "ignore_", "online_features"))]

    @model_validator(mode="after")
    def _check_files(self) -> Self:
        if bool(self.tls_certificate) != bool(self.tls_key):
            raise ValueError(
                f"tls_certificate {self.tls_certificate!r} and tls_key {self.tls_key!r}: give both, or neither"
            )
        if self.tls_client_ca and not self.tls_certificate:
            raise ValueError(f"tls_client_ca {self.tls_client_ca!r} needs tls_certificate and tls_key: give them too")
        return self

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
        ports = {name: port for name, port in self if name in ("grpc_port", "http_port", "health_port") and port}
        for name, port in ports.items():
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
        "", description="local, for a remote store's tables, of this server only; empty: they are read into memory"
    )


class RankerTierConfig(TierConfig):
    """Settings of the servers that run rankers."""

    grpc_port: int = Field(RANKER_GRPC_PORT, ge=0, le=65535)
    http_port: int = Field(RANKER_HTTP_PORT, ge=0, le=65535)
    embedding_address: str = Field(
        "", pattern=r"^$|^[^/]+:\d+$", description="host:port of the embedding tier; empty: tables in this process"
    )
    embedding_ca: str = Field(
        "", description="file of the authorities that the embedding tier's certificate must be of; empty: no encryption"
    )
    embedding_name: str = Field("", description="what that is made out to, where the address has another name")
    health_port: int = Field(
        0, ge=0, le=65535, description="of /live, /ready and /metrics without encryption; 0: only http_port has them"
    )
    threads: int = Field(2, ge=1, description="requests that are computed at one time")
    session_threads: int = Field(1, ge=1, description="of ONNX Runtime, for one request")
    require_gpu: bool = Field(False, description="do not start, or route to a version, on the CPU")
    max_candidates: int = Field(2000, ge=1)
    max_actions: int = Field(20_000, ge=0)
    shadow_waiting: int = Field(
        16,
        ge=1,
        description="answered requests that wait to be scored in shadow at most; more are dropped, and counted",
    )
    ignore_unknown_inputs: bool = Field(False, description="for callers that already send the next version's columns")
    look_up_seconds: float = Field(0.5, gt=0, description="time-out of one look-up, with its retries")
    request_seconds: float = Field(2.0, gt=0, description="time-out of one request")
    drain_seconds: float = Field(30.0, ge=0, description="how long a retired version's requests may take to end")

    @model_validator(mode="after")
    def _check_embedding(self) -> Self:
        for name, needed in (("embedding_ca", "embedding_address"), ("embedding_name", "embedding_ca")):
            if getattr(self, name) and not getattr(self, needed):
                raise ValueError(f"{name} {getattr(self, name)!r} needs {needed}: give it too, or neither")
        return self

    @property
    def limits(self) -> Limits:
        """The limits of one request."""
        return Limits(self.max_candidates, self.max_actions, self.ignore_unknown_inputs, self.online_features)


class RolloutLimits(Config):
    """How much worse than the old version, at the same time, the new one of a rollout may be before it is taken back.

    What chance explains is no reason: a limit is passed when the figure is beyond it by three standard errors.
    """

    min_requests: int = Field(200, ge=1, description="of each version, before the two are compared")
    wait_seconds: float = Field(600.0, ge=0, description="that a share stays at most, for so many to come")
    few_requests: Literal["roll_back", "go_on"] = Field(
        "roll_back", description="what to do when there are fewer by then; go_on trusts the version unseen"
    )
    max_error_increase: float = Field(
        0.01, ge=0, le=1, description="failed requests, as a share of all, above the old version's"
    )
    max_slowdown: float = Field(
        2.0,
        ge=1,
        description="seconds that 90% of requests take at most, or of runs of the net, over the old version's",
    )
    min_slowdown_seconds: float = Field(0.01, ge=0, description="that it must be slower by, besides")
    max_mean_change: float = Field(
        0.2, gt=0, description="of a served objective's mean prediction, relative to the old version's"
    )
    max_shadow_difference: float | None = Field(
        None,
        gt=0,
        description="mean absolute difference from the old version on the same requests; null: only reported",
    )


def check_shares(shares: tuple[float, ...]) -> tuple[float, ...]:
    """The shares of a rollout.

    Raises:
        InputError: If they do not rise to 1.
    """
    ordered = all(a < b for a, b in zip(shares, shares[1:], strict=False))
    if not shares or shares[-1] != 1.0 or not ordered or shares[0] <= 0:
        raise InputError(f"shares {list(shares)}: must rise from above 0 to 1, e.g. 0.1,0.5,1")
    return shares


Address = Annotated[str, Field(pattern=r"^[^/\s,]+:\d+$")]


class ServingConfig(Config):
    """Running servers that each daily run brings the version in production to."""

    deployment: str = Field(pattern=f"^{DEPLOYMENT_NAME}$", description="whose record is moved")
    ranker_servers: tuple[Address, ...] = Field(
        min_length=1, description="host:port of the gRPC of each ranker, or dns:host:port of all that a name stands for"
    )
    embedding_servers: tuple[Address, ...] = Field((), description="likewise of the embedding tier, if there is one")
    shares: tuple[float, ...] = Field((0.1, 0.5, 1.0), description="of users that the new version gets, rising to 1")
    hold_seconds: float = Field(60.0, ge=0, description="how long shadow scoring and each share stay at least")
    step_seconds: float = Field(600.0, gt=0, description="how long the servers may take to follow a step")
    shadow_share: float = Field(
        0.1, ge=0, le=1, description="of requests that the new version scores as well before it answers anybody"
    )
    limits: RolloutLimits = RolloutLimits()
    ca: str = Field("", description="file of the CA that the servers' certificates must be of; empty: not encrypted")
    certificate: str = Field("", description="file of the certificate that they are shown, where they ask for one")
    key: str = Field("", description="file of its key")
    token: str = Field("", description="file of their control token")
    server_name: str = Field("", description="what their certificates are made out to, if not to their addresses")

    @field_validator("shares")
    @classmethod
    def _check(cls, shares: Any) -> Any:
        return check_shares(shares)
