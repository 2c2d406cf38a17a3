"""The two tiers as processes, and clients that keep them busy."""

from __future__ import annotations

import os
import random
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from pathlib import Path

import grpc
import numpy as np
from kserve.protocol.grpc import grpc_predict_v2_pb2 as pb
from kserve.protocol.grpc import grpc_predict_v2_pb2_grpc as pb_grpc

from components.common.errors import InputError
from components.features.objectives import DEFAULT_SERVED
from components.serve.client import RankerClient


def free_port() -> int:
    """A port that nobody listens to."""
    with socket.socket() as found:
        found.bind(("", 0))
        return int(found.getsockname()[1])


class Server:
    """One server's process, which may be killed and started again on its ports."""

    def __init__(self, tier: str, store_uri: str, *options: str, command: list[str] | None = None) -> None:
        self.tier, self.grpc_port, self.http_port = tier, free_port(), free_port()
        self.address = f"localhost:{self.grpc_port}"
        ports = [str(self.grpc_port), str(self.http_port)]
        if command:
            self._command = [*command, tier, store_uri, *ports, *options]
        else:
            flags = ["--store", store_uri, "--grpc-port", ports[0], "--http-port", ports[1]]
            self._command = [sys.executable, "-m", "cli.serve", tier, *flags, *options]
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


class Load:
    """Clients that ask without a pause, and compare each answer with what its version owes the request."""

    def __init__(
        self,
        tensors: list[dict[str, np.ndarray]],
        expected: dict[str, list[np.ndarray]],
        address: str,
        num_clients: int = 3,
    ) -> None:
        self.outcomes: Counter[str] = Counter()
        self.seconds: list[float] = []
        self.versions: Counter[str] = Counter()
        self._tensors, self._expected, self._address = tensors, expected, address
        self._stopping, self._lock = threading.Event(), threading.Lock()
        self._threads = [threading.Thread(target=self._ask, args=(seed,)) for seed in range(num_clients)]

    def _ask(self, seed: int) -> None:
        draw = random.Random(seed)
        with RankerClient(self._address, timeout_seconds=30) as client:
            while not self._stopping.is_set():
                number, started = draw.randrange(len(self._tensors)), time.perf_counter()
                try:
                    ranking = client.rank_tensors(self._tensors[number])
                    found = np.stack([ranking.probabilities[name] for name in DEFAULT_SERVED])
                    expected = self._expected[ranking.version][number]
                    outcome = "right" if np.abs(found - expected).max() <= 1e-5 else "mismatch"
                except InputError as error:
                    outcome, ranking = str(error), None
                with self._lock:
                    self.seconds.append(time.perf_counter() - started)
                    self.outcomes[outcome] += 1
                    self.versions[ranking.version if ranking else ""] += 1

    def percentile(self, share: float) -> float:
        """Seconds that a percentage of the requests took at most."""
        return float(np.percentile(self.seconds, share))

    def __enter__(self) -> Load:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopping.set()
        for thread in self._threads:
            thread.join()


def stub_of(server: Server) -> pb_grpc.GRPCInferenceServiceStub:
    """To call a server as the protocol has it."""
    return pb_grpc.GRPCInferenceServiceStub(grpc.insecure_channel(server.address))
