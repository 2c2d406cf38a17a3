"""Look-ups, RPCs and requests of the two tiers, against float16 tables and against one process; one figure a line.

The model has 60 tables of 200,000 rows at dim 32 and two DHEN layers, random weights; requests carry raw features. All
variants take turns in one run. Rollouts are between two versions of the demo's store, with requests from its logs.
"""

from __future__ import annotations

import random
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import grpc
import numpy as np
from kserve.protocol.grpc import grpc_predict_v2_pb2_grpc as pb_grpc

from components.common import storage
from components.common.deployments import Deployment, known_deployment
from components.common.layout import Store
from components.common.releases import read_pointer
from components.features.objectives import DEFAULT_SERVED
from components.serve.client import RankerClient
from components.serve.protocol import channel_options
from components.serve.ranker_version import RankerVersion
from components.serve.rollout_steps import begin
from components.serve.tensors import infer_request
from components.version.manifest import RANKER_FILE
from components.version.request import Limits
from components.version.table_packing import bytes_of
from components.version.version import Version
from tests.benchmarks.serve_demo import DemoVersions
from tests.benchmarks.serve_figures import interleaved, median_ms, say
from tests.benchmarks.serve_load import BATCHES, open_loop, saturation
from tests.benchmarks.serve_look_ups import look_ups
from tests.benchmarks.serve_throughput import throughput
from tests.benchmarks.serve_tls import tls
from tests.benchmarks.serve_version import FEATURES, NUM_ROWS, Requests, num_parameters, rows_of, write_version
from tests.serving import Load, Server

ROLLOUTS = 20


def rpcs(version: Version, packed: Server, half: Server) -> None:
    """One client that asks the embedding tier for rows."""
    draw = np.random.default_rng(2)
    stubs = {name: _stub(server.address) for name, server in (("packed", packed), ("float16", half))}
    sequence = draw.integers(0, 3, (1, FEATURES.sequence.length, len(FEATURES.sequence_tables)))
    for batch in (100, 500):
        requests = [
            infer_request(
                "tables",
                version.digest,
                {
                    "categorical": draw.integers(0, NUM_ROWS, (batch, len(FEATURES.categorical_tables))),
                    "sequence": sequence,
                },
            )
            for _ in range(200)
        ]
        variants = {
            name: lambda stub=stub, requests=requests: stub.ModelInfer(random.choice(requests), timeout=10)
            for name, stub in stubs.items()
        }
        times = interleaved(variants, 8.0)
        say(f"serve.rpc.packed_ms_b{batch}", median_ms(times["packed"]))
        say(f"serve.rpc.packed_ratio_b{batch}", median_ms(times["packed"]) / median_ms(times["float16"]))


def _stub(address: str) -> pb_grpc.GRPCInferenceServiceStub:
    return pb_grpc.GRPCInferenceServiceStub(grpc.insecure_channel(address, channel_options()))


def bare_run(version: Version, tensors: dict[str, np.ndarray]) -> Callable[[], object]:
    """ONNX Runtime alone, in this process, on what a request becomes."""
    ranker, tables, features = RankerVersion.load(version, 1), version.tables(), version.manifest.features
    request = ranker.contract.read(tensors, Limits())
    categorical, sequence, lengths = ranker.contract.ids(request)
    inputs = (
        tables.look_up(features.categorical_tables, categorical),
        ranker.contract.dense(request),
        tables.look_up(features.sequence_tables, sequence),
        lengths,
        np.zeros(len(categorical), dtype=np.int64),
    )
    return lambda: ranker.run(inputs)


def one_client(systems: dict[str, Server], version: Version) -> dict[int, dict[str, float]]:
    """One client that waits for each answer; median seconds by batch and system."""
    stubs, found = {name: _stub(server.address) for name, server in systems.items()}, {}
    for batch in BATCHES:
        source = Requests(batch)
        requests = [infer_request("ranker", "", source.tensors()) for _ in range(30)]
        variants = {
            name: lambda stub=stub, requests=requests: stub.ModelInfer(random.choice(requests), timeout=30)
            for name, stub in stubs.items()
        }
        times = interleaved({**variants, "bare": bare_run(version, source.tensors())}, 20.0)
        found[batch] = {name: statistics.median(values) for name, values in times.items()}
        for name in systems:
            say(f"serve.{name}.p50_ms_b{batch}", median_ms(times[name]), 2)
        say(f"serve.overhead_b{batch}", found[batch]["hybrid"] / found[batch]["bare"], 2)
        for other in ("monolith", "float16"):
            say(f"serve.hybrid.p50_ratio_to_{other}_b{batch}", found[batch]["hybrid"] / found[batch][other])
    say("serve.hybrid.p50_ratio", found[100]["hybrid"] / found[100]["monolith"])
    return found


def client_overhead(address: str) -> None:
    """The client's whole way, from 100 candidates as rows of Python or columns of NumPy, by a call with ready bytes."""
    source, stub = Requests(100), _stub(address)
    drawn = [source.tensors() for _ in range(30)]
    messages = [infer_request("ranker", "", tensors) for tensors in drawn]
    columns, rows = [], []
    for tensors in drawn:
        parts = source.parts(tensors)
        (user,) = rows_of(parts.pop("user"))
        columns.append({"user": user, **parts})
        rows.append({"user": user, **{part: rows_of(own) for part, own in parts.items()}})
    with RankerClient(address, timeout_seconds=30) as client:
        variants: dict[str, Callable[[], object]] = {
            "bare": lambda: stub.ModelInfer(random.choice(messages), timeout=30),
            "rows": lambda: client.rank(random.choice(rows)),
            "columns": lambda: client.rank(random.choice(columns)),
        }
        times = interleaved(variants, 20.0)
    bare = median_ms(times["bare"])
    say("client.overhead", median_ms(times["rows"]) / bare, 2)
    say("client.overhead_columns", median_ms(times["columns"]) / bare, 2)


def rollouts(demo: Store, root: str) -> None:
    """Between two versions of the demo, back and forth, while clients ask."""
    versions = DemoVersions.copied(demo, root)
    tensors, expected = versions.owed.tensors, versions.owed.expected
    with versions.served(1, 1) as tiers:
        (ranker,), rollout = tiers.rankers, tiers.rollout(shares=(0.5, 1.0))
        quiet = Load(tensors, expected, ranker.address, 2)
        with quiet:
            time.sleep(5)
        load = Load(tensors, expected, ranker.address, 2)
        with load:
            for number in range(ROLLOUTS):
                target = (versions.new, versions.old)[number % 2]
                for _ in rollout.steps(begin(known_deployment(versions.store, "local"), target)):
                    time.sleep(random.uniform(0, 0.1))
    assert known_deployment(versions.store, "local") == Deployment(current=versions.old)
    say("serve.rollout.rollouts", ROLLOUTS, 0)
    say("serve.rollout.answers", load.outcomes["right"], 0)
    say("serve.rollout.p99_ratio", load.percentile(99) / quiet.percentile(99))
    say("serve.rollout.errors", sum(load.outcomes.values()) - load.outcomes["right"] - load.outcomes["mismatch"], 0)
    say("serve.rollout.mismatches", load.outcomes["mismatch"], 0)


def demo_version(demo: Store) -> None:
    """What INT4 changes in the version that `make demo` published."""
    pointer = read_pointer(demo)
    if pointer is None:
        sys.exit(f"error: {demo.root}: nothing is published there; run `make demo` first")
    parity = Version.published(demo, pointer.version).manifest.parity
    changes = [parity.objectives[name].auc_change_percent for name in DEFAULT_SERVED]
    ratios = [parity.objectives[name].mean_prediction_ratio for name in DEFAULT_SERVED]
    say("export.int4.auc_change_max_percent", max(abs(change) for change in changes))
    say("export.int4.mean_change_max", max(abs(ratio - 1) for ratio in ratios), 4)
    print(f"export.parity_max: {parity.max_difference:.1e}", flush=True)


def main(demo_uri: str) -> None:
    """Run all of it."""
    demo = Store(demo_uri)
    demo_version(demo)
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        store = Store(f"{folder}/store")
        version = Version.published(store, write_version(store, "local"))
        say("export.int4.bytes_ratio", bytes_of(list(version.manifest.tables)).ratio, 4)
        onnx = storage.read_bytes(storage.join_uri(version.uri, RANKER_FILE))
        say("serve.model.net_parameters", num_parameters(onnx), 0)
        look_ups(version)
        half_module = [sys.executable, "-W", "ignore", "-m", "tests.benchmarks.serve_half"]
        packed = stack.enter_context(Server("embedding", store.root))
        half = stack.enter_context(Server("embedding", store.root, command=half_module))
        packed.wait_ready()
        half.wait_ready()
        rpcs(version, packed, half)
        systems = {
            "hybrid": Server("ranker", store.root, "--embedding-address", packed.address),
            "monolith": Server("ranker", store.root, "--embedding-address", ""),
            "float16": Server("ranker", store.root, half.address, command=half_module),
        }
        for server in systems.values():
            stack.enter_context(server)
            server.wait_ready()
        open_loop(systems, one_client(systems, version))
        saturation(systems)
        client_overhead(systems["hybrid"].address)
        for server in (half, *systems.values()):
            server.kill()
        for limit_ms, candidates in ((20, 100), (20, 1), (100, 100)):
            throughput(store, limit_ms, candidates)
        tls(store, Path(folder))
        packed.kill()
        rollouts(demo, f"{folder}/rollouts")


if __name__ == "__main__":
    main(sys.argv[1])
