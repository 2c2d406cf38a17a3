"""What TLS costs: a pair of servers with certificates beside a plain pair, taking turns; one figure a line.

Ranker and embedding tier show each other certificates, the ranker shows one to its client.
"""

from __future__ import annotations

import random
import tempfile
from contextlib import ExitStack
from pathlib import Path

import psutil
from kserve.protocol.grpc import grpc_predict_v2_pb2_grpc as pb_grpc

from components.common.layout import Store
from components.serve.credentials import ClientCredentials
from components.serve.tensors import infer_request
from tests.benchmarks.serve_figures import interleaved, median_ms, say
from tests.benchmarks.serve_version import Requests, write_version
from tests.certificates import Authority, Secret
from tests.serving import Server

SECONDS = 30.0


def pair(
    root: str, stack: ExitStack, secret: Secret | None, credentials: ClientCredentials | None
) -> tuple[Server, Server]:
    """An embedding server and a ranker, ready."""
    shown = secret.server_options() if secret else ()
    authority = secret.path("ca.crt") if secret else ""
    clients, embeddings = (("--tls-client-ca", authority), ("--embedding-ca", authority)) if secret else ((), ())
    embedding = stack.enter_context(Server("embedding", root, *shown, *clients, credentials=credentials))
    asked = ("--embedding-address", embedding.address, *embeddings)
    ranker = stack.enter_context(Server("ranker", root, *shown, *asked, credentials=credentials))
    embedding.wait_ready()
    ranker.wait_ready()
    return embedding, ranker


def cpu_seconds(servers: tuple[Server, ...]) -> float:
    """Of all their threads until now."""
    times = [psutil.Process(server.process.pid).cpu_times() for server in servers if server.process]
    return sum(one.user + one.system for one in times)


def tls(store: Store, folder: Path) -> None:
    """One client, 100 candidates and 1."""
    authority = Authority("benchmark")
    certificate, key = authority.issue()
    secret = Secret(folder / "tls", tls_crt=certificate, tls_key=key, ca_crt=authority.pem)
    with ExitStack() as stack:
        pairs = {
            "plain": pair(store.root, stack, None, None),
            "tls": pair(store.root, stack, secret, secret.credentials()),
        }
        stubs = {}
        for name, (_, ranker) in pairs.items():
            channel = stack.enter_context(ranker.credentials.channel(ranker.address))
            stubs[name] = pb_grpc.GRPCInferenceServiceStub(channel)
        for candidates, size in ((100, ""), (1, "_b1")):
            source = Requests(candidates)
            requests = [infer_request("ranker", "", source.tensors()) for _ in range(30)]
            before = {name: cpu_seconds(servers) for name, servers in pairs.items()}
            variants = {
                name: lambda stub=stub, requests=requests: stub.ModelInfer(random.choice(requests), timeout=30)
                for name, stub in stubs.items()
            }
            times = interleaved(variants, SECONDS)
            # Both answered as many.
            used = {name: cpu_seconds(servers) - before[name] for name, servers in pairs.items()}
            say(f"serve.tls.p50_ms{size}", median_ms(times["tls"]), 2)
            say(f"serve.tls.p50_ratio{size}", median_ms(times["tls"]) / median_ms(times["plain"]))
            say(f"serve.tls.cpu_ratio{size}", used["tls"] / used["plain"])


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as made:
        built = Store(f"{made}/store")
        write_version(built, "local")
        tls(built, Path(made))
