"""The servers of a rollout, as it asks them."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager

import grpc

from components.common.errors import InputError
from components.common.progress import log_line
from components.serve.credentials import ClientCredentials
from components.serve.protocol import METRICS_AT, TABLES_MODEL, pb, pb_grpc

_PAUSE_SECONDS, _SAY_SECONDS, LIVE_SECONDS = 0.2, 5.0, 30.0
# Before a name and a port: all servers that the name stands for, as of a headless Service.
_NAME = "dns:"


def servers_at(addresses: tuple[str, ...], seconds: float = 0.0) -> tuple[str, ...]:
    """The servers that addresses stand for now: `dns:host:port` for as many as the name has addresses.

    Args:
        addresses: `host:port`, or such names.
        seconds: How long a name may have none.

    Raises:
        InputError: If a name stands for no server.
    """
    deadline = time.monotonic() + seconds
    while True:
        try:
            return tuple(dict.fromkeys(server for address in addresses for server in _of_name(address)))
        except InputError:
            if time.monotonic() >= deadline:
                raise
        time.sleep(_PAUSE_SECONDS)


def is_gone(server: str, addresses: tuple[str, ...]) -> bool:
    """Whether addresses stand for other servers only; while they stand for none, it may come back."""
    try:
        return server not in servers_at(addresses)
    except InputError:
        return False


def _of_name(address: str) -> list[str]:
    host, _, port = address.removeprefix(_NAME).rpartition(":")
    # A server may be called dns.
    if not address.startswith(_NAME) or ":" not in address.removeprefix(_NAME):
        return [address]
    try:
        if not host or not 0 < int(port) < 2**16:
            raise ValueError("expected dns:host:port")
        found = {known[4] for known in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)}
    except (OSError, ValueError) as error:
        raise InputError(f"{address}: stands for no server ({error}); is one ready?") from error
    pairs = [socket.getnameinfo(one, socket.NI_NUMERICHOST | socket.NI_NUMERICSERV) for one in found]
    return sorted(f"[{ip}]:{number}" if ":" in ip else f"{ip}:{number}" for ip, number in pairs)


class RolloutServer:
    """One server of either tier."""

    def __init__(self, address: str, credentials: ClientCredentials) -> None:
        """Ask the server at `host:port`."""
        self._address, self._credentials = address, credentials

    @contextmanager
    def _stub(self) -> Iterator[pb_grpc.GRPCInferenceServiceStub]:
        with self._credentials.channel(self._address) as channel:
            yield pb_grpc.GRPCInferenceServiceStub(channel)

    def check_open(self, seconds: float) -> None:
        """Check that it answers, and would follow: no deployment has this name, so the call changes nothing."""
        nothing = pb.RepositoryModelLoadRequest(model_name="")
        with self._stub() as stub:
            try:
                stub.ServerLive(pb.ServerLiveRequest(), timeout=seconds, wait_for_ready=True)
            except grpc.RpcError as error:
                raise InputError(
                    f"{self._address}: no server answers ({error.code().name}); nothing has changed. Start it, or name "
                    "the servers' gRPC addresses with --ranker-servers and --embedding-servers"
                ) from error
            try:
                stub.RepositoryModelLoad(nothing, timeout=seconds, metadata=self._credentials.metadata())
            except grpc.RpcError as error:
                if error.code() == grpc.StatusCode.UNAUTHENTICATED:
                    raise InputError(f"{self._address}: {error.details()}; nothing has changed") from error

    def metrics_url(self) -> str:
        """Where its metrics are: on the host that it is asked at, and on the port that it states.

        Raises:
            InputError: If it does not say.
        """
        with self._stub() as stub:
            try:
                answer = stub.ServerMetadata(pb.ServerMetadataRequest(), timeout=LIVE_SECONDS, wait_for_ready=True)
            except grpc.RpcError as error:
                raise InputError(
                    f"{self._address}: does not say where its metrics are ({error.code().name}); run the rollout again"
                ) from error
        stated = dict(extension.split("=", 1) for extension in answer.extensions if "=" in extension)
        if METRICS_AT not in stated:
            raise InputError(
                f"{self._address}: a server of an earlier release; replace it, or roll out with --no-watch"
            )
        scheme, _, port = stated[METRICS_AT].partition(":")
        return f"{scheme}://{self._address.rpartition(':')[0]}:{port}/metrics"

    def load(self, deployment: str, seconds: float, among: tuple[str, ...]) -> bool:
        """Ask it until it follows; one that is being restarted is waited for.

        Args:
            deployment: The record that it reads.
            seconds: How long it may take.
            among: Addresses that stood for it.

        Returns:
            Whether it follows; if not, they stand for others.

        Raises:
            InputError: If it refuses, or takes longer.
        """
        deadline, said_at = time.monotonic() + seconds, time.monotonic()
        request = pb.RepositoryModelLoadRequest(model_name=deployment)
        with self._stub() as stub:
            while True:
                left = deadline - time.monotonic()
                try:
                    stub.RepositoryModelLoad(request, timeout=max(left, 0.001), metadata=self._credentials.metadata())
                    return True
                except grpc.RpcError as error:
                    if error.code() == grpc.StatusCode.UNAVAILABLE and is_gone(self._address, among):
                        return False
                    reason = f"{self._address}: {error.code().name}: {error.details()}"
                    if error.code() != grpc.StatusCode.UNAVAILABLE or left < _PAUSE_SECONDS:
                        raise InputError(
                            f"{reason}; the rollout stands still: the same command goes on, --back takes it back"
                        ) from error
                if time.monotonic() > said_at + _SAY_SECONDS:
                    said_at = time.monotonic()
                    log_line("rollout", f"waiting for {reason}")
                time.sleep(_PAUSE_SECONDS)

    def check_versions(self, tier: str, versions: tuple[str, ...]) -> None:
        """Whether it holds what the record says; if not, it reads another record."""
        with self._stub() as stub:
            for version in versions:
                names = {"name": TABLES_MODEL, "version": version} if tier == TABLES_MODEL else {"name": version}
                try:
                    held = stub.ModelReady(pb.ModelReadyRequest(**names), timeout=LIVE_SECONDS).ready
                except grpc.RpcError:
                    held = False
                if not held:
                    raise InputError(
                        f"{self._address}: does not hold version {version[:12]}, though it followed the deployment's "
                        "record; does it read the same store? Run the rollout again if it was just restarted"
                    )
