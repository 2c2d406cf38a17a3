"""What is too much, too late or not readable: both protocols say what was wrong, and never that the server failed."""

from __future__ import annotations

import http.client
import json
import socket
import time
from concurrent import futures
from types import SimpleNamespace

import grpc
import numpy as np
import pytest
from kserve.protocol.grpc import grpc_predict_v2_pb2 as pb
from kserve.protocol.grpc import grpc_predict_v2_pb2_grpc as pb_grpc

from components.serve.config import EmbeddingTierConfig
from components.serve.embedding_server import EmbeddingServicer
from components.serve.embedding_tier import EmbeddingTier
from components.serve.protocol import RANKER_MODEL
from components.serve.tensors import infer_request, rest_body
from tests.serving import Server, post, stub_of

MAX_IDS, MAX_REQUESTS, REQUEST_SECONDS = 1500, 2, 3.0
HEAD = b"POST /v2/models/ranker/infer HTTP/1.1\r\nHost: x\r\n"


class Recording(EmbeddingServicer):
    """Notes the time that each look-up has left."""

    left: list[float]

    def ModelInfer(self, request, context):
        self.left.append(context.time_remaining())
        return super().ModelInfer(request, context)


@pytest.fixture(scope="module")
def limited(published):
    """A ranker with small limits, whose embedding tier is in this process."""
    tier = EmbeddingTier(EmbeddingTierConfig(store_uri=published.store.root, max_ids=MAX_IDS))
    tier.load()
    servicer = Recording(tier)
    servicer.left = []
    embedding = grpc.server(futures.ThreadPoolExecutor(4))
    pb_grpc.add_GRPCInferenceServiceServicer_to_server(servicer, embedding)
    port = embedding.add_insecure_port("localhost:0")
    embedding.start()
    settings = {"max_requests": MAX_REQUESTS, "request_seconds": REQUEST_SECONDS, "look_up_seconds": 60}
    options = [text for name, value in settings.items() for text in ("--set", f"{name}={value}")]
    with Server("ranker", published.store.root, "--embedding-address", f"localhost:{port}", *options) as ranker:
        ranker.wait_ready()
        yield SimpleNamespace(ranker=ranker, stub=stub_of(ranker), tier=tier, left=servicer.left)
    embedding.stop(0)


@pytest.fixture
def connection(limited):
    found = http.client.HTTPConnection("localhost", limited.ranker.http_port, timeout=20)
    yield found
    found.close()


def candidates(tensors, number):
    return {**tensors, "item_id": np.repeat(tensors["item_id"], number)}


def ask_grpc(limited, tensors, timeout=10.0):
    return limited.stub.ModelInfer(infer_request(RANKER_MODEL, "", tensors), timeout=timeout)


def refusal_of(call):
    with pytest.raises(grpc.RpcError) as refused:
        call()
    return refused.value.code().name, refused.value.details()


def test_body_that_is_too_large_is_refused_in_an_answer_that_arrives(connection, published):
    """The client sends 33 MB before it listens, and may go on with the connection, or wants it closed."""
    body, limit = b" " * 33_000_000, 16 * 2**20
    said = f"the body has {len(body)} bytes; at most {limit} are allowed"
    assert post(connection, body) == (413, {"error": said})
    assert post(connection, rest_body(published.tensors[0]))[0] == 200
    assert post(connection, body, Connection="close") == (413, {"error": said})
    chunks = (b" " * 2**20 for _ in range(33))
    connection.request("POST", "/v2/models/ranker/infer", chunks, encode_chunked=True, headers={"Connection": "close"})
    answer = connection.getresponse()
    said = f"the body has more than {limit} bytes, the most allowed"
    assert (answer.status, json.load(answer)) == (413, {"error": said})


def test_client_that_asks_before_it_sends_is_refused_without_the_body(limited):
    head = HEAD + b"Expect: 100-continue\r\nContent-Length: 33000000\r\n\r\n"
    with socket.create_connection(("localhost", limited.ranker.http_port), timeout=10) as client:
        client.sendall(head)
        assert client.recv(1000).startswith(b"HTTP/1.1 413 ")


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b'{"inputs": [', "the body is not JSON: Expecting value at character 12"),
        (b"", "the body: Field required"),
        (b'{"inputs": 3}', "inputs: Input should be a valid list"),
        (b'{"inputs": [{"name": "item_id", "shape": [1], "data": [1]}]}', "inputs.0.datatype: Field required"),
        (b'{"inputs": "\xff"}', "error parsing the body"),
    ],
)
def test_body_that_is_no_request_is_a_clear_400(connection, body, message):
    status, answer = post(connection, body)
    assert status == 400 and set(answer) == {"error"} and message in answer["error"], answer


def test_other_refusals_have_the_same_form(connection):
    status, answer = post(connection, {}, "/v2/nothing")
    assert (status, answer) == (404, {"error": "Not Found"})


def test_more_ids_than_the_embedding_tier_takes_are_the_callers_error(limited, connection, published):
    many = candidates(published.tensors[0], 300)
    code, said = refusal_of(lambda: ask_grpc(limited, many))
    assert code == "INVALID_ARGUMENT" and f"at most {MAX_IDS} (max_ids): send fewer candidates" in said, said
    status, answer = post(connection, rest_body(many))
    assert status == 400 and answer["error"] == said
    assert ask_grpc(limited, candidates(published.tensors[0], 100)).model_version == published.old


def test_limits_that_have_changed_are_noticed(limited, published, monkeypatch):
    """Lower ones are refused by the tier itself until they are known; higher ones count at once."""

    def ask(number):
        return ask_grpc(limited, candidates(published.tensors[0], number))

    ask(1)
    with monkeypatch.context() as lower:
        lower.setattr(limited.tier, "config", limited.tier.config.model_copy(update={"max_ids": 50}))
        code, said = refusal_of(lambda: ask(100))
        assert code == "RESOURCE_EXHAUSTED" and "ids in one request, at most 50 are allowed" in said
    with monkeypatch.context() as small:
        small.setattr(limited.tier, "config", limited.tier.config.model_copy(update={"max_message_bytes": 5_000}))
        code, said = refusal_of(lambda: ask(100))
        assert code == "RESOURCE_EXHAUSTED" and "the rows of the request take" in said and "at most 5000" in said
    with monkeypatch.context() as higher:
        higher.setattr(limited.tier, "config", limited.tier.config.model_copy(update={"max_ids": 50_000}))
        assert ask(300).model_version == published.old


def test_metadata_states_the_limits(limited, connection):
    stated = {"max_message_bytes=16777216", f"max_requests={MAX_REQUESTS}", "max_candidates=2000", "max_actions=20000"}
    assert stated <= {*limited.stub.ServerMetadata(pb.ServerMetadataRequest()).extensions}
    connection.request("GET", "/v2")
    assert stated <= {*json.load(connection.getresponse())["extensions"]}


def test_callers_time_out_is_passed_on_to_the_look_up(limited, published):
    """And where it has none, or a longer one, that of the server is."""
    for timeout, longest in ((1.0, 1.0), (60.0, REQUEST_SECONDS), (None, REQUEST_SECONDS)):
        limited.left.clear()
        ask_grpc(limited, published.tensors[0], timeout)
        (left,) = limited.left
        assert longest - 1.0 < left < longest + 0.1


def test_both_protocols_share_the_places_and_health_needs_none(limited, connection, published):
    """Bodies that do not come hold places, but not for ever."""
    address, started = ("localhost", limited.ranker.http_port), time.monotonic()
    head = HEAD + b"Content-Length: 100\r\n\r\n"
    with socket.create_connection(address, timeout=20) as one, socket.create_connection(address, timeout=20) as other:
        one.sendall(head)
        other.sendall(head)
        while post(connection, rest_body(published.tensors[0]))[0] != 429:
            assert time.monotonic() < started + REQUEST_SECONDS
        code, said = refusal_of(lambda: ask_grpc(limited, published.tensors[0]))
        assert code == "RESOURCE_EXHAUSTED" and said == f"{MAX_REQUESTS} requests are being answered; try again later"
        connection.request("GET", "/v2/health/ready")
        answer = connection.getresponse()
        assert answer.status == 200 and answer.read()
        assert limited.stub.ServerReady(pb.ServerReadyRequest()).ready
        assert one.recv(1000).startswith(b"HTTP/1.1 408 ") and other.recv(1000).startswith(b"HTTP/1.1 408 ")
        assert ask_grpc(limited, published.tensors[0]).model_version == published.old
