"""Throughput in time: the highest rate of an open loop whose p99 stays within a limit; one figure a line.

One ranker looks up in 1, 2 and 4 servers of the embedding tier, all on this machine, which share its cores.
"""

from __future__ import annotations

import argparse
import itertools
import statistics
import sys
import tempfile
import time
from collections.abc import Callable

import grpc
import numpy as np
from kserve.protocol.grpc import grpc_predict_v2_pb2 as pb
from kserve.protocol.grpc import grpc_predict_v2_pb2_grpc as pb_grpc

from components.common.layout import Store
from components.serve.protocol import channel_options
from components.serve.tensors import infer_request
from tests.benchmarks.serve_figures import say
from tests.benchmarks.serve_load import SLICE_SECONDS, OpenLoop
from tests.benchmarks.serve_version import Requests, write_version
from tests.serving import started_tiers

REPLICAS = (1, 2, 4)
_CLIENTS, _TRIES = 4, 2
# Else one late answer is a hundredth of them.
_MIN_REQUESTS, _MAX_SECONDS = 200, 10.0
_FACTOR, _BISECTIONS = 1.5, 2
# So many times the limit is no accident, and not tried again.
_FAR_BEYOND = 3.0


def median_alone(address: str, requests: list[pb.ModelInferRequest]) -> float:
    """Seconds of half of the requests at most, of one client that waits for each answer."""
    with grpc.insecure_channel(address, channel_options()) as channel:
        stub, times = pb_grpc.GRPCInferenceServiceStub(channel), []
        for request in itertools.islice(itertools.cycle(requests), 60):
            started = time.perf_counter()
            stub.ModelInfer(request, timeout=30)
            times.append(time.perf_counter() - started)
    return statistics.median(times[10:])


def highest_rate(is_met: Callable[[float], bool], start: float) -> float:
    """The highest rate that is met, to within about ten percent; 0 if an eighth of the start is not."""
    met, rate = 0.0, start
    while not met:
        if is_met(rate):
            met = rate
        elif rate < start / 4:
            return 0.0
        else:
            rate /= 2
    missed = met * _FACTOR
    while is_met(missed):
        met, missed = missed, missed * _FACTOR
    for _ in range(_BISECTIONS):
        middle = (met * missed) ** 0.5
        met, missed = (middle, missed) if is_met(middle) else (met, middle)
    return met


def throughput(store: Store, limit_ms: float = 20.0, candidates: int = 100) -> None:
    """For each number of replicas; 0 where a request that is alone takes longer than the limit."""
    source = Requests(candidates)
    requests = [infer_request("ranker", "", source.tensors()) for _ in range(30)]
    figure, size = f"serve.at_p99_{limit_ms:g}ms", "" if candidates == 100 else f"_b{candidates}"
    for replicas in REPLICAS:
        with started_tiers(store.root, replicas, 1) as (_, (ranker,)):
            alone = median_alone(ranker.address, requests)

            def is_met(rate: float, address: str = ranker.address) -> bool:
                """In one of some slices: another user of the machine may be busy in one of them."""
                for _ in range(_TRIES):
                    loop, seconds = OpenLoop(), min(max(SLICE_SECONDS, _MIN_REQUESTS / rate), _MAX_SECONDS)
                    loop.run(address, requests, _CLIENTS, rate, seconds)
                    p99_ms = float(np.percentile(loop.latencies or [np.inf], 99)) * 1e3
                    print(
                        f"{rate:.1f} a second: p99 {p99_ms:.1f} ms, {loop.errors} errors", file=sys.stderr, flush=True
                    )
                    if loop.errors or p99_ms > _FAR_BEYOND * limit_ms:
                        return False
                    if p99_ms <= limit_ms:
                        return True
                return False

            rate = highest_rate(is_met, 0.4 / alone) if alone * 1e3 < limit_ms else 0.0
        say(f"{figure}.p50_ms_alone_{replicas}{size}", alone * 1e3, 2)
        say(f"{figure}.requests_per_second_{replicas}{size}", rate, 1)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="The highest rate whose p99 stays within a limit.")
    parser.add_argument("--limit-ms", type=float, default=20.0)
    parser.add_argument("--candidates", type=int, default=100)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        built = Store(f"{folder}/store")
        write_version(built, "local")
        throughput(built, given.limit_ms, given.candidates)
