"""What a server shows and asks for: its certificate, its clients' certificates, and the token of control calls."""

from __future__ import annotations

import hmac
import logging
import ssl
from typing import Any

import grpc

from components.serve.config import TierConfig
from components.serve.credentials import (
    Certificates,
    ClientCertificates,
    Mounted,
    keep_fresh,
    read_authorities,
    read_pair,
    read_tokens,
)
from components.serve.observability import log_event


class TierCredentials:
    """The files of a server's settings, as they are now."""

    def __init__(self, config: TierConfig, embedding_ca: str = "") -> None:
        """Read the files that are set.

        Raises:
            InputError: If one of them cannot be used.
        """
        self._config = config
        pair = (config.tls_certificate, config.tls_key)
        self._own = Mounted("tls_certificate", pair, read_pair) if config.tls_certificate else None
        self._client_ca = _authorities("tls_client_ca", config.tls_client_ca)
        self._embedding_ca = _authorities("embedding_ca", embedding_ca)
        self._tokens = Mounted("control_token", (config.control_token,), read_tokens) if config.control_token else None
        self._context: ssl.SSLContext | None = None
        self._context_of: tuple[Certificates | None, ...] = ()

    def keep_fresh(self) -> None:
        """Read the files again from now on, and say what is open to whoever reaches the ports."""
        mounted = (self._own, self._client_ca, self._embedding_ca, self._tokens)
        keep_fresh([each for each in mounted if each is not None])
        if self._tokens is None and self._client_ca is None:
            log_event(
                "control calls are open: whoever reaches the ports can change what is served; set control_token",
                logging.WARNING,
            )
        elif self._own is None:
            log_event("the control token comes unencrypted; set tls_certificate, or stay in a mesh", logging.WARNING)

    @property
    def encrypted(self) -> bool:
        """Whether ports are."""
        return self._own is not None

    def add_port(self, server: Any, address: str) -> int:
        """Have a gRPC server of either kind listen; returns its port."""
        if self._own is None:
            return int(server.add_insecure_port(address))
        given = self._certificates()

        def changed() -> grpc.ServerCertificateConfiguration | None:
            nonlocal given
            if self._certificates() == given:
                return None
            given = self._certificates()
            return _configuration(*given)

        credentials = grpc.dynamic_ssl_server_credentials(
            _configuration(*given), changed, require_client_authentication=self._client_ca is not None
        )
        return int(server.add_secure_port(address, credentials))

    def _certificates(self) -> tuple[Certificates, Certificates | None]:
        assert self._own is not None
        return self._own.value, self._client_ca.value if self._client_ca else None

    def rest_context(self) -> ssl.SSLContext:
        """The context of HTTPS; each handshake goes on with one of the files as they are then.

        Raises:
            ssl.SSLError: If the files cannot be used.
        """
        first = self._made_context()
        first.sni_callback = self._renew
        return first

    def _renew(self, connection: ssl.SSLObject, name: str | None, context: ssl.SSLContext) -> None:
        if self._certificates() != self._context_of:
            try:
                self._made_context()
            except (OSError, ValueError) as error:
                # They are being replaced again; the next handshake finds them whole.
                log_event("the last good context stays in use", logging.ERROR, reason=str(error))
        assert self._context is not None
        connection.context = self._context

    def _made_context(self) -> ssl.SSLContext:
        """A context for what the files say; it is kept only when all of them were taken."""
        made, certificates = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), self._certificates()
        made.minimum_version = ssl.TLSVersion.TLSv1_2
        made.set_alpn_protocols(["http/1.1"])
        # A resumed session would show no certificate, and outlive a CA that was taken out.
        made.num_tickets = 0
        # From the files, not from what was read of them: a key must not be written anywhere else.
        made.load_cert_chain(self._config.tls_certificate, self._config.tls_key)
        if certificates[1] is not None:
            made.verify_mode = ssl.CERT_REQUIRED
            made.load_verify_locations(cadata=certificates[1].pem.decode("ascii", "ignore"))
        self._context, self._context_of = made, certificates
        return made

    def to_embedding_tier(self) -> ClientCertificates | None:
        """The embedding tier's authorities, and what this server shows it; None if nothing is encrypted."""
        if self._embedding_ca is None:
            return None
        return ClientCertificates(self._embedding_ca.value, self._own.value if self._own else None)

    def may_control(self, authorization: str) -> bool:
        """Whether a call's `authorization` lets it change what is served."""
        if self._tokens is None:
            return True
        kind, _, token = authorization.partition(" ")
        given = token.strip().encode()
        # All of them, so that the time says nothing of which one it was.
        matches = [hmac.compare_digest(given, each) for each in self._tokens.value]
        return kind.lower() == "bearer" and any(matches)


def _authorities(name: str, path: str) -> Mounted[Certificates] | None:
    return Mounted(name, (path,), read_authorities) if path else None


def _configuration(own: Certificates, client_ca: Certificates | None) -> grpc.ServerCertificateConfiguration:
    authorities = client_ca.pem if client_ca else None
    return grpc.ssl_server_certificate_configuration([(own.key, own.pem)], root_certificates=authorities)
