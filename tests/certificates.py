"""Authorities, certificates, and secrets that are mounted as Kubernetes does it."""

from __future__ import annotations

import os
import uuid
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from components.serve.credentials import ClientCredentials


class Authority:
    """Signs certificates of localhost and other names, for servers and clients alike."""

    def __init__(self, name: str, *others: str) -> None:
        self._hosts = [x509.DNSName(host) for host in ("localhost", *others)]
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        signed = self._signed(self._name, self._key.public_key(), timedelta(days=2), is_authority=True)
        self.pem = signed.public_bytes(serialization.Encoding.PEM)

    def _signed(
        self, name: x509.Name, key: ec.EllipticCurvePublicKey, lasting: timedelta, is_authority: bool = False
    ) -> x509.Certificate:
        now = datetime.now(UTC)
        return (
            x509.CertificateBuilder()
            .subject_name(name)
            .issuer_name(self._name)
            .public_key(key)
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - timedelta(days=1))
            .not_valid_after(now + lasting)
            .add_extension(x509.BasicConstraints(ca=is_authority, path_length=None), critical=True)
            .add_extension(
                x509.SubjectAlternativeName([*self._hosts, x509.IPAddress(ip_address("127.0.0.1"))]),
                critical=False,
            )
            .sign(self._key, hashes.SHA256())
        )

    def issue(self, lasting: timedelta = timedelta(days=1)) -> tuple[bytes, bytes]:
        """A certificate and its key as PEM; a time below zero makes one that has expired."""
        key = ec.generate_private_key(ec.SECP256R1())
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
        certificate = self._signed(name, key.public_key(), lasting).public_bytes(serialization.Encoding.PEM)
        return certificate, key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )


class Secret:
    """A directory whose files are links into another one, which is replaced as a whole."""

    def __init__(self, folder: Path, **files: bytes) -> None:
        self.folder, self._files = folder, dict[str, bytes]()
        folder.mkdir()
        self.put(**files)

    def path(self, name: str) -> str:
        return str(self.folder / name)

    def put(self, **files: bytes) -> None:
        """Replace files; names have underscores for their dots."""
        self._files |= {name.replace("_", "."): content for name, content in files.items()}
        generation = self.folder / f"..{uuid.uuid4().hex}"
        generation.mkdir()
        for name, content in self._files.items():
            (generation / name).write_bytes(content)
            if not (self.folder / name).is_symlink():
                (self.folder / name).symlink_to(Path("..data", name))
        (self.folder / "..next").symlink_to(generation.name)
        os.replace(self.folder / "..next", self.folder / "..data")

    def put_pair(self, pair: tuple[bytes, bytes]) -> None:
        self.put(tls_crt=pair[0], tls_key=pair[1])

    def server_options(self) -> tuple[str, ...]:
        """How a server of either tier is told to show it."""
        return "--tls-certificate", self.path("tls.crt"), "--tls-key", self.path("tls.key")

    def credentials(self) -> ClientCredentials:
        """What a client that holds it shows, and whom it trusts."""
        return ClientCredentials(self.path("ca.crt"), self.path("tls.crt"), self.path("tls.key"))
