"""The two tiers as processes."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import grpc
from kserve.protocol.grpc import grpc_predict_v2_pb2 as pb
from kserve.protocol.grpc import grpc_predict_v2_pb2_grpc as pb_grpc


def free_port() -> int:
    """A port that nobody listens to."""
    with socket.socket() as found:
        found.bind(("", 0))
        return int(found.getsockname()[1])


class Server:
    """One server's process, which may be killed and started again on its ports."""

    def __init__(self, tier: str, store_uri: str, *options: str) -> None:
        self.tier, self.grpc_port, self.http_port = tier, free_port(), free_port()
        self.address = f"localhost:{self.grpc_port}"
        ports = ["--grpc-port", str(self.grpc_port), "--http-port", str(self.http_port)]
        self._command = [sys.executable, "-m", "components.serve", tier, "--store", store_uri, *ports, *options]
        self.log = Path(store_uri, f"{tier}-{self.grpc_port}.log")
        self.process: subprocess.Popen | None = None

    def start(self) -> None:
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                self._command, stderr=log, stdout=log, env={**os.environ, "OMP_NUM_THREADS": "1"}
            )

    def wait_ready(self, seconds: float = 90.0) -> None:
        """Until it is ready.

        Raises:
            AssertionError: With its log, if it ends or takes too long.
        """
        deadline = time.monotonic() + seconds
        with grpc.insecure_channel(self.address) as channel:
            stub = pb_grpc.GRPCInferenceServiceStub(channel)
            while True:
                assert self.process is not None and self.process.poll() is None, self.log.read_text()
                try:
                    if self._is_ready(stub):
                        return
                except grpc.RpcError:
                    pass
                assert time.monotonic() < deadline, self.log.read_text()
                time.sleep(0.05)

    def _is_ready(self, stub: pb_grpc.GRPCInferenceServiceStub) -> bool:
        if self.tier == "embedding":
            return bool(stub.ServerReady(pb.ServerReadyRequest(), timeout=1).ready)
        return bool(stub.ModelReady(pb.ModelReadyRequest(name="ranker"), timeout=1).ready)

    def kill(self) -> None:
        """As a machine that fails."""
        self.stop(signal.SIGKILL)

    def stop(self, number: int = signal.SIGTERM) -> int:
        """Send a signal and wait; returns the exit code."""
        assert self.process is not None
        if self.process.poll() is None:
            self.process.send_signal(number)
        return self.process.wait(timeout=30)

    def __enter__(self) -> Server:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop(signal.SIGKILL)
