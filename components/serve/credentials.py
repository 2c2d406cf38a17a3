"""Certificates and tokens, each from a file that is replaced while it is in use; and what clients of servers need."""

from __future__ import annotations

import logging
import ssl
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Generic, TypeVar

import grpc
from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from components.common.errors import InputError
from components.serve.client_connection import Connection
from components.serve.observability import CREDENTIALS_REFUSED, EXPIRES_AT, log_event

_RELOAD_SECONDS = 1.0
_MIN_TOKEN_LENGTH = 16
T = TypeVar("T")


@dataclass(frozen=True)
class Certificates:
    """Certificates that were found good, as PEM.

    Attributes:
        pem: A server's or client's own chain, its own certificate first; or the authorities that are trusted.
        key: The private key of the first; empty for authorities.
        expires_at: When the first of the chain, or the last of the authorities, does.
    """

    pem: bytes
    key: bytes
    expires_at: datetime


def read_pair(certificate: bytes, key: bytes) -> Certificates:
    """A certificate, with those that signed it, and its key.

    Raises:
        InputError: If one is not readable, or they do not belong together.
    """
    chain = _certificates(certificate)
    try:
        private = load_pem_private_key(key, password=None)
        together = private.public_key() == chain[0].public_key()
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise InputError(f"the key is not readable ({error}); it must be PEM without a password") from error
    if not together:
        raise InputError("certificate and key do not belong together; mount both from one secret")
    return Certificates(certificate, key, min(each.not_valid_after_utc for each in chain))


def read_authorities(pem: bytes) -> Certificates:
    """The certificates of authorities.

    Raises:
        InputError: If they are not readable.
    """
    return Certificates(pem, b"", max(each.not_valid_after_utc for each in _certificates(pem)))


def _certificates(pem: bytes) -> list[x509.Certificate]:
    try:
        return x509.load_pem_x509_certificates(pem)
    except ValueError as error:
        raise InputError(f"no certificate in PEM ({error})") from error


def read_tokens(content: bytes) -> tuple[bytes, ...]:
    """Tokens, one a line; while they are replaced there are two, the new one first.

    Raises:
        InputError: If there is none, or one that can be guessed.
    """
    tokens = tuple(content.split())
    if not tokens or min(map(len, tokens)) < _MIN_TOKEN_LENGTH or not content.isascii():
        raise InputError(
            f"must hold a token of {_MIN_TOKEN_LENGTH} or more ASCII characters a line, as `openssl rand -hex 32` makes"
        )
    return tokens


class Mounted(Generic[T]):
    """What files say, as long as they can be used; else what they said before.

    Kubernetes replaces the files of a secret while they are read, so a pair may be half of each.

    Attributes:
        name: The setting that names them.
        value: What they say.
    """

    def __init__(self, name: str, paths: Sequence[str], read: Callable[..., T]) -> None:
        """Read files for the first time.

        Raises:
            InputError: If they cannot be used.
        """
        self.name, self._paths, self._read = name, tuple(paths), read
        self._reason = ""
        try:
            self._content = self._contents()
            self.value = read(*self._content)
        except (InputError, OSError) as error:
            raise InputError(f"{name} {' and '.join(self._paths)}: {error}") from error
        self._tell()
        if self._expired(self.value):
            log_event("certificate has expired", logging.ERROR, setting=name, files=self._paths)

    def _contents(self) -> tuple[bytes, ...]:
        return tuple(Path(path).read_bytes() for path in self._paths)

    def refresh(self) -> None:
        """Take what the files say now; if that is of no use, keep what they said, and say so once."""
        try:
            content = self._contents()
            if content == self._content:
                self._accept()
                return
            found = self._read(*content)
            if self._expired(found) and not self._expired(self.value):
                raise InputError("the certificate has expired")
        except (InputError, OSError) as error:
            CREDENTIALS_REFUSED.labels(self.name).set(1)
            if str(error) != self._reason:
                self._reason = str(error)
                log_event("the last good files stay in use", logging.ERROR, setting=self.name, reason=self._reason)
            return
        self._content, self.value = content, found
        self._accept()
        self._tell()
        log_event("files taken", setting=self.name, files=self._paths)

    def _accept(self) -> None:
        self._reason = ""
        CREDENTIALS_REFUSED.labels(self.name).set(0)

    def _tell(self) -> None:
        CREDENTIALS_REFUSED.labels(self.name).set(0)
        if isinstance(self.value, Certificates):
            EXPIRES_AT.labels(self.name).set(self.value.expires_at.timestamp())

    @staticmethod
    def _expired(value: object) -> bool:
        return isinstance(value, Certificates) and value.expires_at <= datetime.now(UTC)


def keep_fresh(mounted: Sequence[Mounted]) -> None:
    """Read files again every second, in a thread of its own: one that hangs holds up no request."""

    def refresh() -> None:
        while True:
            time.sleep(_RELOAD_SECONDS)
            for each in mounted:
                try:
                    each.refresh()
                except Exception:
                    # Without this thread, certificates would expire in use.
                    logging.getLogger(__name__).exception("files not read")

    if mounted:
        threading.Thread(target=refresh, name="credentials", daemon=True).start()


@dataclass(frozen=True)
class ClientCertificates:
    """What a client's connection is made with.

    Attributes:
        authorities: That servers' certificates must be of.
        own: The client's own, where servers ask for one.
    """

    authorities: Certificates
    own: Certificates | None

    def of_grpc(self) -> grpc.ChannelCredentials:
        """As gRPC takes them."""
        key, chain = (self.own.key, self.own.pem) if self.own else (None, None)
        return grpc.ssl_channel_credentials(self.authorities.pem, key, chain)


@dataclass(frozen=True)
class ClientCredentials:
    """How a client knows a server, and is known by it; without files, neither is asked for.

    Attributes:
        ca: File of the authorities that servers' certificates must be of; without it, nothing is encrypted.
        certificate: File of the client's own certificate, where servers ask for one.
        key: File of its key.
        token: File whose first line is the token of calls that change what is served.
        server_name: What servers' certificates are made out to, where that is not the name in the address.

    Raises:
        InputError: If one is given without the other that it needs.
    """

    ca: str = ""
    certificate: str = ""
    key: str = ""
    token: str = ""
    server_name: str = ""

    def __post_init__(self) -> None:
        if bool(self.certificate) != bool(self.key):
            raise InputError(f"certificate {self.certificate!r} and key {self.key!r}: give both, or neither")
        if (self.certificate or self.server_name) and not self.ca:
            raise InputError("a client's certificate, or a server's name, is of use only with the file of a CA")

    @property
    def connection(self) -> Connection:
        """The same for calls that change nothing."""
        return Connection(ca=self.ca, certificate=self.certificate, key=self.key, server_name=self.server_name)

    def channel(self, address: str) -> grpc.Channel:
        """A connection to a server, with the certificates that the files hold now.

        Raises:
            InputError: If they cannot be used.
        """
        if not self.ca:
            return grpc.insecure_channel(address)
        own = Mounted("certificate", (self.certificate, self.key), read_pair).value if self.certificate else None
        certificates = ClientCertificates(Mounted("ca", (self.ca,), read_authorities).value, own)
        return grpc.secure_channel(address, certificates.of_grpc(), made_out_to(self.server_name))

    def https_context(self) -> ssl.SSLContext | None:
        """What a server of HTTPS is known by, and shown; None without a CA."""
        if not self.ca:
            return None
        context = ssl.create_default_context(cafile=self.ca)
        # The certificate is made out to another name, which HTTPS cannot be told.
        context.check_hostname = not self.server_name
        if self.certificate:
            context.load_cert_chain(self.certificate, self.key)
        return context

    def metadata(self) -> tuple[tuple[str, str], ...]:
        """What goes with calls that change what is served: the token that the file holds now.

        Raises:
            InputError: If it holds none.
        """
        if not self.token:
            return ()
        token = Mounted("token", (self.token,), read_tokens).value[0]
        return (("authorization", f"Bearer {token.decode()}"),)


def made_out_to(server_name: str) -> list[tuple[str, object]]:
    """A channel's options where servers' certificates have another name than the address."""
    return [("grpc.ssl_target_name_override", server_name)] if server_name else []
