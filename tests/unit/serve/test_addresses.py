"""Rankers find embedding servers that come while the others stay, and ask another when one stops."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
import threading
from collections.abc import Iterator
from concurrent import futures
from contextlib import contextmanager

import grpc
import numpy as np

from components.serve.config import EmbeddingTierConfig
from components.serve.embedding_server import EmbeddingServicer
from components.serve.embedding_tier import EmbeddingTier
from components.serve.protocol import pb_grpc
from components.serve.table_source import RemoteTables


@contextmanager
def name_server(addresses: list[str]) -> Iterator[str]:
    """A DNS server that gives every name these IPv4 addresses, as they are when it is asked; `host:port`."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as given:
        given.bind(("127.0.0.1", 0))

        def answer() -> None:
            while True:
                try:
                    query, client = given.recvfrom(512)
                except OSError:
                    return
                # RFC 1035, section 4: the question is repeated, and each record points to its name.
                end = query.index(b"\0", 12) + 5
                is_a = query[end - 4 : end - 2] == b"\0\1"
                records = [
                    b"\xc0\x0c" + struct.pack(">HHIH", 1, 1, 0, 4) + socket.inet_aton(address)
                    for address in (addresses if is_a else [])
                ]
                head = query[:2] + b"\x81\x80" + struct.pack(">HHHH", 1, len(records), 0, 0)
                with contextlib.suppress(OSError):
                    given.sendto(head + query[12:end] + b"".join(records), client)

        threading.Thread(target=answer, daemon=True).start()
        yield f"127.0.0.1:{given.getsockname()[1]}"


class _Counting(EmbeddingServicer):
    asked = 0

    def ModelInfer(self, request, context):
        self.asked += 1
        return super().ModelInfer(request, context)


class _Stopping(EmbeddingServicer):
    """Says what gRPC says to a call that waits while the server stops, before each answer."""

    refused = 0

    def ModelInfer(self, request, context):
        self.refused += 1
        if self.refused % 2:
            context.abort(grpc.StatusCode.CANCELLED, "CANCELLED")
        return super().ModelInfer(request, context)


def test_look_up_that_a_stopping_server_cancels_is_asked_again(published, fresh_store):
    config = EmbeddingTierConfig(store_uri=fresh_store.root)
    tier = EmbeddingTier(config)
    tier.load()
    servicer = _Stopping(tier)
    server = grpc.server(futures.ThreadPoolExecutor(1), options=config.grpc_options)
    pb_grpc.add_GRPCInferenceServiceServicer_to_server(servicer, server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    sequence = np.zeros((1, 1, len(tier.find(published.old).features.sequence_tables)), dtype=np.int64)
    try:
        rows = asyncio.run(RemoteTables(f"127.0.0.1:{port}", 10.0).look_up(published.old, published.ids(2), sequence))
    finally:
        server.stop(0)
    assert len(rows[0]) == 2 and servicer.refused == 2


def test_server_that_comes_is_asked_while_the_others_stay(published, fresh_store):
    config = EmbeddingTierConfig(store_uri=fresh_store.root, connection_seconds=1)
    tier = EmbeddingTier(config)
    tier.load()
    servicers, port, addresses = [_Counting(tier), _Counting(tier)], 0, ["127.0.0.1"]
    sequence = np.zeros((1, 1, len(tier.find(published.old).features.sequence_tables)), dtype=np.int64)

    async def ask_until_both_answer(name: str) -> None:
        tables = RemoteTables(name, 10.0)
        while not servicers[1].asked:
            await tables.look_up(published.old, published.ids(1), sequence)
            if servicers[0].asked == 5:
                addresses.append("127.0.0.2")

    with name_server(addresses) as names:
        servers = []
        for host, servicer in zip(("127.0.0.1", "127.0.0.2"), servicers, strict=True):
            server = grpc.server(futures.ThreadPoolExecutor(1), options=config.grpc_options)
            pb_grpc.add_GRPCInferenceServiceServicer_to_server(servicer, server)
            port = server.add_insecure_port(f"{host}:{port}")
            server.start()
            servers.append(server)
        try:
            asyncio.run(asyncio.wait_for(ask_until_both_answer(f"dns://{names}/embedding.test:{port}"), 30))
        finally:
            for server in servers:
                server.stop(0)
    assert servicers[0].asked >= 5
