"""What it costs that both tiers encrypt and show each other certificates."""

from __future__ import annotations

import random
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from kserve.protocol.grpc import grpc_predict_v2_pb2_grpc as pb_grpc

from components.serve.credentials import ClientCredentials
from components.serve.protocol import channel_options
from components.serve.tensors import infer_request
from tests.benchmarks.serve_look_ups import interleaved, median_ms, say
from tests.benchmarks.serve_version import Requests
from tests.certificates import Authority, Secret
from tests.serving import Server


@contextmanager
def _encrypted(root: str) -> Iterator[Server]:
    """The ranker of two such tiers, ready."""
    authority = Authority("benchmark")
    certificate, key = authority.issue()
    with tempfile.TemporaryDirectory() as folder:
        path = Secret(Path(folder, "secret"), tls_crt=certificate, tls_key=key, ca_crt=authority.pem).path
        shown = ClientCredentials(path("ca.crt"), path("tls.crt"), path("tls.key"))
        own = ("--tls-certificate", shown.certificate, "--tls-key", shown.key, "--tls-client-ca", shown.ca)
        with Server("embedding", root, *own, credentials=shown) as tables:
            asked = ("--embedding-address", tables.address, "--embedding-ca", shown.ca)
            with Server("ranker", root, *own, *asked, credentials=shown) as ranker:
                tables.wait_ready()
                ranker.wait_ready()
                yield ranker


def what_encryption_costs(root: str, plain: Server, seconds: float = 10.0) -> None:
    """One client that asks tiers with and without it in turn."""
    with ExitStack() as stack:
        stubs = {}
        for name, server in (("plain", plain), ("encrypted", stack.enter_context(_encrypted(root)))):
            channel = stack.enter_context(server.credentials.channel(server.address, channel_options()))
            stubs[name] = pb_grpc.GRPCInferenceServiceStub(channel)
        for batch in (100, 500):
            source = Requests(batch)
            requests = [infer_request("ranker", "", source.tensors()) for _ in range(30)]
            variants = {
                name: lambda stub=stub, requests=requests: stub.ModelInfer(random.choice(requests), timeout=30)
                for name, stub in stubs.items()
            }
            times = interleaved(variants, seconds)
            say(f"serve.tls.p50_ratio_b{batch}", median_ms(times["encrypted"]) / median_ms(times["plain"]))
