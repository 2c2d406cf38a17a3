"""Whatever comes to the servers' ports is answered or refused: no crash, no hang, no INTERNAL, no memory that stays."""

from __future__ import annotations

import http.client
import json
from pathlib import Path

import grpc
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from kserve.protocol.grpc import grpc_predict_v2_pb2 as pb

from components.serve.tensors import infer_request, rest_body
from tests.serving import post

SETTINGS = settings(
    max_examples=150, deadline=None, database=None, derandomize=True, suppress_health_check=list(HealthCheck)
)
GROWTH_BYTES = 200 * 2**20
REFUSED = {"INVALID_ARGUMENT", "NOT_FOUND", "FAILED_PRECONDITION", "RESOURCE_EXHAUSTED", "UNAVAILABLE"}

words = st.one_of(
    st.sampled_from(
        ["", "ranker", "tables", "categorical", "sequence", "user_id", "timestamp", "item_id", "version"]
        + ["online_features", "user_hash"]
    ),
    st.sampled_from(["INT64", "FP32", "FP64", "BOOL", "BYTES", "UINT8", "FP16", "int64", "binary_data_size", "..\x00"]),
    st.text(max_size=20),
    st.integers(1, 40_000).map(lambda length: "x" * length),
)
whole = st.one_of(st.sampled_from([-1, 0, 1, 2, 2**31, 2**62, -(2**63)]), st.integers(-(2**63), 2**63 - 1))
parameters = st.dictionaries(
    words,
    st.one_of(
        st.builds(pb.InferParameter, string_param=words),
        st.builds(pb.InferParameter, int64_param=whole),
        st.builds(pb.InferParameter, bool_param=st.booleans()),
    ),
    max_size=2,
)
contents = st.one_of(
    st.none(),
    st.builds(pb.InferTensorContents, int64_contents=st.lists(whole, max_size=5)),
    st.builds(pb.InferTensorContents, fp32_contents=st.lists(st.floats(width=32), max_size=5)),
    st.builds(pb.InferTensorContents, bytes_contents=st.lists(st.binary(max_size=9), max_size=5)),
    st.builds(
        pb.InferTensorContents, bool_contents=st.lists(st.booleans(), max_size=3), int_contents=st.lists(st.just(1))
    ),
)
tensors = st.builds(
    pb.ModelInferRequest.InferInputTensor,
    name=words,
    datatype=words,
    shape=st.lists(whole, max_size=4),
    parameters=parameters,
    contents=contents,
)
messages = st.builds(
    pb.ModelInferRequest,
    model_name=words,
    model_version=words,
    id=words,
    parameters=parameters,
    inputs=st.lists(tensors, max_size=4),
    outputs=st.lists(st.builds(pb.ModelInferRequest.InferRequestedOutputTensor, name=words), max_size=2),
    raw_input_contents=st.lists(st.binary(max_size=40), max_size=4),
)
leaves = st.one_of(st.none(), st.booleans(), whole, st.floats(), words, st.just(10**400))
values = st.recursive(
    leaves, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(words, inner, max_size=4), max_leaves=12
)
FIELDS = ("name", "shape", "datatype", "data", "parameters", "id", "inputs", "outputs", "binary_data_size")
PATHS = (
    "/v2/models/ranker/infer",
    "/v2/models/ranker/versions/1/infer",
    "/v1/models/ranker:predict",
    "/v1/models/ranker:explain",
    "/v2/models/..%2f..%2fetc/infer",
    "/v2/repository/models/%00/load",
)
HEADERS = st.dictionaries(
    st.sampled_from(
        ["Inference-Header-Content-Length", "ce-id", "ce-specversion", "ce-source", "ce-type", "Content-Encoding"]
        + ["Content-Type", "Accept", "Authorization", "Transfer-Encodings"]
    ),
    st.sampled_from(["0", "-1", "7", "99999999999999999999", "x", "1.0", "application/cloudevents+json", "gzip"])
    | st.sampled_from(["application/octet-stream", "application/json", "text/plain", "Bearer \xff"]),
    max_size=5,
)


def resident_bytes(server):
    status = Path(f"/proc/{server.process.pid}/status").read_text()
    return 1024 * int(next(line.split()[1] for line in status.splitlines() if line.startswith("VmRSS")))


@pytest.fixture
def still_answering(published, servers, client):
    """The next good request is answered, and memory is where it was."""
    before = [resident_bytes(server) for server in servers]
    yield
    assert client.rank(published.requests[0]).version == published.old
    for server, was in zip(servers, before, strict=True):
        assert server.process.poll() is None, server.log.read_text()
        assert resident_bytes(server) < was + GROWTH_BYTES


def altered(message, change):
    """A good message, some of whose fields are those of another."""
    found = pb.ModelInferRequest.FromString(message.SerializeToString())
    found.MergeFrom(change)
    return found


@pytest.mark.parametrize("model", ["tables", "online_features", "ranker"])
def test_messages_of_grpc(published, servers, still_answering, model):
    hashes = {"user_hash": np.array([7]), "item_id": np.array([1, 2])}
    version, tensors_of_model = {
        "tables": (published.old, {"categorical": published.ids(2)}),
        "online_features": (published.old, hashes),
        "ranker": ("", published.tensors[0]),
    }[model]
    good = infer_request(model, version, tensors_of_model)
    with grpc.insecure_channel(servers[model == "ranker"].address) as channel:
        infer = channel.unary_unary("/inference.GRPCInferenceService/ModelInfer")
        calls = [
            channel.unary_unary(f"/inference.GRPCInferenceService/{name}")
            for name in ("ModelMetadata", "ModelReady", "RepositoryModelLoad", "RepositoryModelUnload", "ServerLive")
        ]

        def ask(call, content, also):
            try:
                call(content, timeout=10)
            except grpc.RpcError as error:
                assert error.code().name in REFUSED | also, error
                assert error.details()

        @SETTINGS
        @given(messages, st.booleans(), st.sampled_from(calls), st.binary(max_size=60))
        def send(message, alter, call, content):
            request = altered(good, message) if alter else message
            ask(infer, request.SerializeToString(), set())
            # What is no message of the protocol is refused by gRPC itself, in words of its own.
            ask(call, content, {"INTERNAL", "UNKNOWN", "UNIMPLEMENTED"})
            ask(
                call,
                pb.ModelReadyRequest(name=message.model_name, version=message.id).SerializeToString(),
                {"UNIMPLEMENTED"},
            )

        send()


def altered_input(body, changed, field, value):
    """A good body, one of whose inputs has another value in a field."""
    inputs = [tensor | {field: value} if tensor is changed else tensor for tensor in body["inputs"]]
    return json.dumps(body | {"inputs": inputs}).encode()


def test_bodies_of_rest(published, servers, still_answering):
    good = rest_body(published.tensors[0])
    bodies = st.one_of(
        values.map(lambda value: json.dumps(value).encode()),
        st.dictionaries(st.sampled_from(FIELDS), values, max_size=5).map(lambda value: json.dumps(value).encode()),
        st.builds(altered_input, st.just(good), st.sampled_from(good["inputs"]), st.sampled_from(FIELDS), values),
        st.builds(lambda field, value: json.dumps(good | {field: value}).encode(), st.sampled_from(FIELDS), values),
        st.integers(1, 200_000).map(lambda depth: b'{"inputs":' + b"[" * depth),
        st.binary(max_size=200),
    )

    @SETTINGS
    @given(bodies, HEADERS, st.sampled_from(PATHS[:1] * 6 + PATHS), st.integers(-1, 1))
    def send(body, headers, path, beyond):
        if headers.get("Content-Type") == "application/octet-stream":
            headers = headers | {"Inference-Header-Content-Length": str(len(body) + beyond)}
        connection = http.client.HTTPConnection("localhost", servers[1].http_port, timeout=10)
        try:
            status, answer = post(connection, body, path, **headers)
        finally:
            connection.close()
        assert status == 200 or 400 <= status < 500 or status == 501, (status, answer)
        assert status == 200 or answer["error"]

    send()
