"""Servers that are told to stop, or killed, under load: no request is lost where another server can answer it."""

from __future__ import annotations

import http.client
import signal
import socket
import subprocess
import sys
import time
from contextlib import ExitStack

import grpc
import numpy as np
import pytest
from kserve.protocol.grpc import grpc_predict_v2_pb2 as pb

from components.features.objectives import DEFAULT_SERVED
from components.serve.protocol import RANKER_MODEL
from components.serve.tensors import infer_request, rest_body
from tests.serving import PATIENT, BalancedLoad, Server, free_port, is_ready, post, stub_of

UNREADY = ("--set", "unready_seconds=1.5")


def until(condition, seconds=10.0):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def stop_and_ask(ranker, published, number):
    """A server that is told to stop says that it is not ready, answers all the same, closes connections, and ends."""
    stub, connection = stub_of(ranker), http.client.HTTPConnection("localhost", ranker.http_port, timeout=10)
    ranker.process.send_signal(number)
    until(lambda: not is_ready(ranker))
    assert not stub.ServerReady(pb.ServerReadyRequest()).ready and stub.ServerLive(pb.ServerLiveRequest()).live
    assert not stub.ModelReady(pb.ModelReadyRequest(name=RANKER_MODEL)).ready
    assert not stub.ModelReady(pb.ModelReadyRequest(name=published.old)).ready
    with pytest.raises(grpc.RpcError, match="told to stop") as refused:
        stub.RepositoryModelLoad(pb.RepositoryModelLoadRequest(model_name="local"))
    assert refused.value.code() == grpc.StatusCode.UNAVAILABLE
    answer = stub.ModelInfer(infer_request(RANKER_MODEL, "", published.tensors[0]), timeout=10)
    assert answer.model_version == published.old
    assert post(connection, rest_body(published.tensors[0]))[0] == 200 and connection.sock is None
    assert ranker.process.wait(timeout=30) == 0


def test_rankers_that_are_replaced_one_after_the_other_lose_no_request(published, fresh_store):
    with ExitStack() as running:
        options = ("--embedding-address", "", *UNREADY, *PATIENT)
        rankers = [running.enter_context(Server("ranker", fresh_store.root, *options)) for _ in range(2)]
        for server in rankers:
            server.wait_ready()
        with BalancedLoad(published.tensors, published.expected, *rankers) as load:
            load.wait_for(20)
            stop_and_ask(rankers[0], published, signal.SIGTERM)
            load.wait_for(20)
            rankers[0].start()
            rankers[0].wait_ready()
            until(lambda: rankers[0] in load.ready)
            load.wait_for(20)
            stop_and_ask(rankers[1], published, signal.SIGINT)
            load.wait_for(20)
    assert set(load.outcomes) == {"right"}, load.outcomes


def test_embedding_servers_that_stop_or_are_killed_lose_no_request(published, fresh_store):
    """Three of them behind one name: the ranker looks up elsewhere, and says whom it asked when nobody is left."""
    with ExitStack() as running:
        tables = [running.enter_context(Server("embedding", fresh_store.root, *UNREADY)) for _ in range(3)]
        name = "ipv4:" + ",".join(f"127.0.0.1:{server.grpc_port}" for server in tables)
        ranker = running.enter_context(Server("ranker", fresh_store.root, "--embedding-address", name))
        for server in (*tables, ranker):
            server.wait_ready()
        with BalancedLoad(published.tensors, published.expected, ranker) as load:
            load.wait_for(20)
            tables[0].process.send_signal(signal.SIGTERM)
            until(lambda: not is_ready(tables[0]))
            ids = infer_request("tables", published.old, {"categorical": published.ids(1)})
            assert stub_of(tables[0]).ModelInfer(ids, timeout=10).model_version == published.old
            assert tables[0].process.wait(timeout=30) == 0
            load.wait_for(20)
            tables[1].kill()
            load.wait_for(50)
        assert set(load.outcomes) == {"right"} and not load.times_unready, (load.outcomes, load.times_unready)
        tables[2].kill()
        started = time.monotonic()
        with pytest.raises(grpc.RpcError, match=name) as refused:
            stub_of(ranker).ModelInfer(infer_request(RANKER_MODEL, "", published.tensors[0]), timeout=10)
        assert refused.value.code() == grpc.StatusCode.UNAVAILABLE and time.monotonic() - started < 3
        assert not is_ready(ranker)


@pytest.mark.parametrize("tier", ["embedding", "ranker"])
def test_second_signal_ends_at_once(published, fresh_store, tier):
    options = ("--embedding-address", "") if tier == "ranker" else ()
    with Server(tier, fresh_store.root, *options, "--set", "unready_seconds=600") as server:
        server.wait_ready()
        server.process.send_signal(signal.SIGTERM)
        until(lambda: not is_ready(server))
        assert server.process.poll() is None
        assert server.stop(signal.SIGINT) == 128 + signal.SIGINT


def test_requests_in_flight_are_answered_when_there_is_nothing_to_wait_for(published, fresh_store):
    """As on a laptop: no time unready, and all the same every request that had begun is answered."""
    options = ("--embedding-address", "", "--set", "unready_seconds=0")
    tensors = published.tensors[0]
    big = {**tensors, "item_id": np.repeat(tensors["item_id"], 2000)}
    with Server("ranker", fresh_store.root, *options, "--set", "request_seconds=30") as server:
        server.wait_ready()
        stub = stub_of(server)
        calls = [stub.ModelInfer.future(infer_request(RANKER_MODEL, "", big), timeout=30) for _ in range(6)]
        calls[0].result()
        assert server.stop() == 0
        for call in calls:
            answer = call.result()
            assert answer.model_version == published.old and len(answer.outputs) == len(DEFAULT_SERVED)


def test_servers_of_a_laptop_end_without_a_pause(published, fresh_store):
    """Ctrl-C, without the seconds that both tiers would wait elsewhere."""
    names = ("--grpc-port", "--http-port", "--embedding-grpc-port", "--embedding-http-port")
    ports = {name: free_port() for name in names}
    flags = [text for name, port in ports.items() for text in (name, str(port))]
    command = [sys.executable, "-m", "cli.serve", "local", "--store", fresh_store.root, *flags]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        assert any(line.startswith(b"serve.embedding") for line in process.stdout), "the servers did not get ready"
        started = time.monotonic()
        process.send_signal(signal.SIGINT)
        assert process.wait(timeout=30) == 0 and time.monotonic() - started < 9.0
    for port in ports.values():
        with socket.socket() as probe:
            assert probe.connect_ex(("localhost", port)), "a server is still there"
