"""How a client connects: addresses, TLS and tokens."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc

from components.common.errors import InputError
from components.serve.protocol import channel_options, pb

_SERVICE = "inference.GRPCInferenceService"


@dataclass(frozen=True)
class Connection:
    """Who the server and the client say they are.

    Attributes:
        tls: Whether to encrypt; also when any of the three files is named.
        ca: Path of the PEM file with the authorities that servers are believed by; empty: the system's.
        certificate: Path of the client's own PEM certificate chain, where servers ask for one; with `key`.
        key: Path of its PEM key.
        server_name: What the server's certificate is for, where that is not the host of its address.
        bearer_token: Sent as `authorization: Bearer TOKEN`; a function is asked before every call.
        allow_plain_token: Whether it may be sent without TLS, as to a sidecar on the same machine.
    """

    tls: bool = False
    ca: str = ""
    certificate: str = ""
    key: str = ""
    server_name: str = ""
    bearer_token: str | Callable[[], str] = ""
    allow_plain_token: bool = False

    def __post_init__(self) -> None:
        """Check that the fields fit each other.

        Raises:
            InputError: Naming the field to change.
        """
        if bool(self.certificate) != bool(self.key):
            absent = "key" if self.certificate else "certificate"
            raise InputError(f"connection: {absent} is missing; the client's certificate and its key go together")
        if self.bearer_token and not self.encrypted and not self.allow_plain_token:
            raise InputError(
                "connection: bearer_token would be readable on the way; set tls or ca, or allow_plain_token"
            )
        if self.server_name and not self.encrypted:
            raise InputError("connection: server_name is of a certificate; set tls or ca")

    @property
    def encrypted(self) -> bool:
        """Whether TLS is used."""
        return bool(self.tls or self.ca or self.certificate)

    def metadata(self) -> list[tuple[str, str]]:
        """What every call carries."""
        token = self.bearer_token() if callable(self.bearer_token) else self.bearer_token
        return [("authorization", f"Bearer {token}")] if token else []

    def channel(self, library: Any, address: str) -> Any:
        """A channel to an address, by `grpc` or `grpc.aio`.

        Raises:
            InputError: If a file cannot be read.
        """
        # All servers behind a name are asked in turn.
        config = json.dumps({"loadBalancingConfig": [{"round_robin": {}}]})
        options = [*channel_options(), ("grpc.service_config", config)]
        if not self.encrypted:
            return library.insecure_channel(address, options)
        if self.server_name:
            options.append(("grpc.ssl_target_name_override", self.server_name))
        files = (self.ca, self.key, self.certificate)
        return library.secure_channel(address, grpc.ssl_channel_credentials(*map(_content, files)), options)


def _content(path: str) -> bytes | None:
    try:
        return Path(path).read_bytes() if path else None
    except OSError as error:
        raise InputError(f"{path}: the certificate or key cannot be read ({error.strerror})") from error


def addresses_of(given: str | Sequence[str]) -> tuple[str, ...]:
    """Addresses of servers, from one, several with commas, or a list.

    Raises:
        InputError: If one is not `host:port`.
    """
    addresses = tuple(text.strip() for text in (given.split(",") if isinstance(given, str) else given))
    wrong = [address for address in addresses if ":" not in address or address.startswith(("http://", "https://"))]
    if wrong or not addresses:
        raise InputError(
            f"address {', '.join(wrong)!r}: expected host:port, of a ranker's gRPC port, as in ranker:8081"
        )
    return addresses


def callables_of(channel: Any) -> dict[str, Any]:
    """What calls the methods that clients need over a channel, by name; KServe's stubs would import KServe."""
    return {
        name: channel.unary_unary(
            f"/{_SERVICE}/{name}",
            request_serializer=getattr(pb, f"{name}Request").SerializeToString,
            response_deserializer=getattr(pb, f"{name}Response").FromString,
        )
        for name in ("ModelInfer", "ModelMetadata", "ServerMetadata")
    }
