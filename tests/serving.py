"""The two tiers as processes, and clients that keep them busy."""

from __future__ import annotations

import http.client
import json
import os
import random
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Self

import grpc
import numpy as np
from kserve.protocol.grpc import grpc_predict_v2_pb2 as pb
from kserve.protocol.grpc import grpc_predict_v2_pb2_grpc as pb_grpc

from components.common.errors import InputError
from components.features.objectives import DEFAULT_SERVED
from components.serve.client import RankerClient
from components.serve.credentials import ClientCredentials
from components.serve.tensors import arrays_of, infer_request, rest_body
from components.version.wire_names import Ranking

# Callers of so small a machine must have time: a server that is slow is not one that fails.
PATIENT = ("--set", "request_seconds=20", "--set", "look_up_seconds=10")


def free_port() -> int:
    """A port that nobody listens to."""
    with socket.socket() as found:
        found.bind(("", 0))
        return int(found.getsockname()[1])


class Server:
    """One server's process, which may be killed and started again on its ports."""

    def __init__(
        self,
        tier: str,
        store_uri: str,
        *options: str,
        command: list[str] | None = None,
        credentials: ClientCredentials | None = None,
    ) -> None:
        self.credentials = credentials or ClientCredentials()
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
        with self.credentials.channel(self.address) as channel:
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


@contextmanager
def started_tiers(
    root: str, num_tables: int, num_rankers: int, *ranker_options: str
) -> Iterator[tuple[list[Server], list[Server]]]:
    """Servers of both tiers that are ready; each ranker asks all servers of the embedding tier in turn."""
    with ExitStack() as running:
        tables = [running.enter_context(Server("embedding", root)) for _ in range(num_tables)]
        address = "ipv4:" + ",".join(f"127.0.0.1:{server.grpc_port}" for server in tables)
        options = ("--embedding-address", address, *ranker_options)
        rankers = [running.enter_context(Server("ranker", root, *options)) for _ in range(num_rankers)]
        for server in (*tables, *rankers):
            server.wait_ready()
        yield tables, rankers


def wait_until(holds: Callable[[], object], server: Server | None = None, seconds: float = 60.0) -> None:
    """Ask again until something holds.

    Raises:
        AssertionError: If it never does, or a server that it waits for ends.
    """
    deadline = time.monotonic() + seconds
    while not holds():
        assert server is None or (server.process and server.process.poll() is None), server.log.read_text()
        assert time.monotonic() < deadline
        time.sleep(0.05)


class Load:
    """Clients that ask without a pause, and compare each answer with what its version owes the request.

    Attributes:
        answered: When each version answered first and last.
    """

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
        self.answered: dict[str, tuple[float, float]] = {}
        self._tensors, self._expected, self._address = tensors, expected, address
        self._stopping, self._lock = threading.Event(), threading.Lock()
        self._threads = [threading.Thread(target=self._ask, args=(seed,)) for seed in range(num_clients)]

    @contextmanager
    def _client(self, seed: int) -> Iterator[Callable[[dict[str, np.ndarray]], Ranking]]:
        """What one client asks with."""
        with RankerClient(self._address, timeout_seconds=30) as client:
            yield client.rank_tensors

    def _ask(self, seed: int) -> None:
        draw = random.Random(seed)
        with self._client(seed) as rank:
            while not self._stopping.is_set():
                number, started = draw.randrange(len(self._tensors)), time.perf_counter()
                try:
                    ranking = rank(self._tensors[number])
                    found = np.stack([ranking.probabilities[name] for name in DEFAULT_SERVED])
                    expected = self._expected[ranking.version][number]
                    outcome = "right" if np.abs(found - expected).max() <= 1e-5 else "mismatch"
                except (InputError, OSError, grpc.RpcError, http.client.HTTPException) as error:
                    outcome, ranking = f"{type(error).__name__}: {error}", None
                version, now = ranking.version if ranking else "", time.perf_counter()
                with self._lock:
                    self.seconds.append(now - started)
                    self.outcomes[outcome] += 1
                    self.versions[version] += 1
                    self.answered[version] = (self.answered.get(version, (now, now))[0], now)

    def percentile(self, share: float) -> float:
        """Seconds that a percentage of the requests took at most."""
        return float(np.percentile(self.seconds, share))

    def wait_for(self, number: int, seconds: float = 60.0) -> None:
        """Until so many more requests were answered, or one failed."""
        deadline, wanted = time.monotonic() + seconds, self.outcomes.total() + number
        while self.outcomes.total() < wanted and set(self.outcomes) <= {"right"}:
            assert time.monotonic() < deadline, self.outcomes
            time.sleep(0.02)

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopping.set()
        for thread in self._threads:
            thread.join()


class BalancedLoad(Load):
    """Clients of both protocols that never ask twice, over what a Service would be: each asks a server that was ready.

    Attributes:
        ready: Servers that said so when they were last asked.
        times_unready: How often each server was asked and was not ready, by its port.
    """

    def __init__(
        self, tensors: list[dict[str, np.ndarray]], expected: dict[str, list[np.ndarray]], *servers: Server
    ) -> None:
        super().__init__(tensors, expected, "", num_clients=4)
        self.ready, self.times_unready, self._servers = servers, Counter[int](), servers
        self._threads.append(threading.Thread(target=self._poll))

    def _poll(self) -> None:
        while not self._stopping.is_set():
            self.ready = tuple(server for server in self._servers if is_ready(server))
            self.times_unready.update(server.grpc_port for server in self._servers if server not in self.ready)
            time.sleep(0.1)

    @contextmanager
    def _client(self, seed: int) -> Iterator[Callable[[dict[str, np.ndarray]], Ranking]]:
        draw, connections = random.Random(seed), dict[int, Any]()
        connect, ask = (_connect_rest, ask_rest) if seed % 2 else (_connect_grpc, ask_grpc)

        def rank(tensors: dict[str, np.ndarray]) -> Ranking:
            server = draw.choice(self.ready or self._servers)
            assert server.process is not None
            pid = server.process.pid
            connections[pid] = connections.get(pid) or connect(server)
            # Servers that start must have some of the cores.
            self._stopping.wait(0.02)
            return ask(connections[pid], tensors)

        yield rank


def is_ready(server: Server) -> bool:
    """What a server's readiness says over HTTP, as Kubernetes asks."""
    path = "/ready" if server.tier == "embedding" else "/v2/health/ready"
    try:
        with urllib.request.urlopen(f"http://localhost:{server.http_port}{path}", timeout=2) as answer:
            return bool(answer.status == 200)
    except OSError:
        return False


def _connect_grpc(server: Server) -> pb_grpc.GRPCInferenceServiceStub:
    # Else it shares the pauses between tries of others in this process, which wait for the server to start.
    options = [("grpc.use_local_subchannel_pool", 1)]
    return pb_grpc.GRPCInferenceServiceStub(grpc.insecure_channel(server.address, options))


def ask_grpc(stub: pb_grpc.GRPCInferenceServiceStub, tensors: dict[str, np.ndarray]) -> Ranking:
    """Once."""
    answer = stub.ModelInfer(infer_request("ranker", "", tensors), timeout=20)
    return Ranking(answer.model_version, arrays_of(answer.outputs, answer.raw_output_contents))


def _connect_rest(server: Server) -> http.client.HTTPConnection:
    return http.client.HTTPConnection("localhost", server.http_port, timeout=20)


def ask_rest(connection: http.client.HTTPConnection, tensors: dict[str, np.ndarray]) -> Ranking:
    """Once, over a connection that is kept until the server closes it."""
    status, answer = post(connection, rest_body(tensors))
    if status != 200:
        raise InputError(f"{status}: {answer}")
    found = {output["name"]: np.array(output["data"]) for output in answer["outputs"]}
    return Ranking(answer["model_version"], found)


def post(
    connection: http.client.HTTPConnection, body: Any, path: str = "/v2/models/ranker/infer", **headers: str
) -> tuple[int, Any]:
    """Post JSON, or bytes as they are; returns the status and the answer's JSON."""
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    connection.request("POST", path, content, {"Content-Type": "application/json", **headers})
    answer = connection.getresponse()
    return answer.status, json.loads(answer.read())


def stub_of(server: Server) -> pb_grpc.GRPCInferenceServiceStub:
    """To call a server as the protocol has it."""
    return pb_grpc.GRPCInferenceServiceStub(grpc.insecure_channel(server.address))
