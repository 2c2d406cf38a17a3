"""Many clients at once: requests at a rate that the server can meet, and as many as it answers."""

from __future__ import annotations

import random
import threading
import time
from dataclasses import dataclass, field

import grpc
import numpy as np
from kserve.protocol.grpc import grpc_predict_v2_pb2 as pb
from kserve.protocol.grpc import grpc_predict_v2_pb2_grpc as pb_grpc

from components.serve.protocol import channel_options
from components.serve.tensors import infer_request
from tests.benchmarks.serve_figures import say
from tests.benchmarks.serve_version import Requests
from tests.serving import Server

BATCHES, CLIENTS = (1, 100, 500), (1, 4, 16)
ROUNDS, SLICE_SECONDS, UTILISATION = 3, 4.0, 0.5
_CLIENTS_AT_SATURATION = 8


@dataclass
class OpenLoop:
    """Clients that send at moments drawn in advance, whatever the answers do; late answers count from these moments.

    Attributes:
        latencies: Seconds from the moment a request was due to its answer.
        errors: Requests that failed.
    """

    latencies: list[float] = field(default_factory=list)
    errors: int = 0
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def run(
        self,
        address: str,
        requests: list[pb.ModelInferRequest],
        clients: int,
        rate: float,
        seconds: float = SLICE_SECONDS,
    ) -> None:
        """Send at `rate` requests a second from `clients` connections."""
        threads = [
            threading.Thread(target=self._client, args=(address, requests, rate / clients, seconds, seed))
            for seed in range(clients)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    def _client(
        self, address: str, requests: list[pb.ModelInferRequest], rate: float, seconds: float, seed: int
    ) -> None:
        draw, pending = random.Random(seed), []
        with grpc.insecure_channel(address, channel_options()) as channel:
            stub = pb_grpc.GRPCInferenceServiceStub(channel)
            grpc.channel_ready_future(channel).result(timeout=10)
            due, end = time.perf_counter(), time.perf_counter() + seconds
            while (due := due + draw.expovariate(rate)) < end:
                time.sleep(max(due - time.perf_counter(), 0))
                call = stub.ModelInfer.future(draw.choice(requests), timeout=30)
                call.add_done_callback(lambda call, due=due: self._count(call, due))
                pending.append(call)
            for call in pending:
                call.exception()

    def _count(self, call: grpc.Future, due: float) -> None:
        now = time.perf_counter()
        with self._lock:
            if call.exception() is None:
                self.latencies.append(now - due)
            else:
                self.errors += 1


def open_loop(systems: dict[str, Server], alone: dict[int, dict[str, float]]) -> None:
    """At a rate that keeps one core half busy, from 1, 4 and 16 connections."""
    print("serve.load: clients batch system      rate/s  answered/s   p50 ms   p99 ms  errors", flush=True)
    for batch in BATCHES:
        source = Requests(batch)
        requests = [infer_request("ranker", "", source.tensors()) for _ in range(30)]
        rate = UTILISATION / alone[batch]["monolith"]
        for clients in CLIENTS:
            loads = {name: OpenLoop() for name in systems}
            for _ in range(ROUNDS):
                for name, server in systems.items():
                    loads[name].run(server.address, requests, clients, rate)
            for name, load in loads.items():
                p50, p99 = np.percentile(load.latencies or [np.nan], [50, 99]) * 1e3
                answered = len(load.latencies) / (ROUNDS * SLICE_SECONDS)
                print(
                    f"serve.load: {clients:7d} {batch:5d} {name:10s} {rate:8.1f} {answered:11.1f} "
                    f"{p50:8.2f} {p99:8.2f} {load.errors:7d}",
                    flush=True,
                )


def saturation(systems: dict[str, Server]) -> None:
    """Requests that are answered in a second, in time, where clients always wait for their last answer."""
    for batch in BATCHES:
        source = Requests(batch)
        requests = [infer_request("ranker", "", source.tensors()) for _ in range(30)]
        answered = dict.fromkeys(systems, 0)
        for _ in range(ROUNDS):
            for name, server in systems.items():
                answered[name] += sum(_asked_in_turn(server.address, requests))
        rates = {name: count / (ROUNDS * SLICE_SECONDS) for name, count in answered.items()}
        for name, rate in rates.items():
            say(f"serve.saturation.{name}.requests_per_s_b{batch}", rate, 1)
        say(f"serve.saturation.ratio_to_monolith_b{batch}", rates["hybrid"] / rates["monolith"])


def _asked_in_turn(address: str, requests: list[pb.ModelInferRequest]) -> list[int]:
    """Answers that each of some clients gets within `SLICE_SECONDS`."""
    answered = [0] * _CLIENTS_AT_SATURATION

    def ask(number: int) -> None:
        draw, end = random.Random(number), time.monotonic() + SLICE_SECONDS
        with grpc.insecure_channel(address, channel_options()) as channel:
            stub = pb_grpc.GRPCInferenceServiceStub(channel)
            while time.monotonic() < end:
                try:
                    stub.ModelInfer(draw.choice(requests), timeout=30)
                    answered[number] += 1
                except grpc.RpcError as error:
                    # Eight large requests at once may take longer than a server lets one take.
                    assert error.code() == grpc.StatusCode.DEADLINE_EXCEEDED, error

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(len(answered))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return answered
