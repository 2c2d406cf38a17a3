"""The protocol's binary extension over REST."""

from __future__ import annotations

import http.client
import json

import numpy as np
import pytest

from components.features.objectives import DEFAULT_SERVED
from components.serve.tensors import infer_request
from tests.serving import post

OCTETS = "application/octet-stream"


def binary_body(tensors):
    """JSON, and behind it the contents that the same request has over gRPC."""
    message = infer_request("ranker", "", tensors)
    inputs = [
        {"name": tensor.name, "shape": list(tensor.shape), "datatype": tensor.datatype}
        | {"parameters": {"binary_data_size": len(content)}}
        for tensor, content in zip(message.inputs, message.raw_input_contents, strict=True)
    ]
    return json.dumps({"inputs": inputs}).encode(), b"".join(message.raw_input_contents)


def send(server, described, contents, **headers):
    connection = http.client.HTTPConnection("localhost", server.http_port, timeout=20)
    headers = {"Content-Type": OCTETS, "Inference-Header-Content-Length": str(len(described))} | headers
    return post(connection, described + contents, **headers)


def test_binary_bodies_get_the_same_answers(published, servers):
    for number in (0, 7):
        status, answer = send(servers[1], *binary_body(published.tensors[number]))
        assert status == 200, answer
        found = {output["name"]: output["data"] for output in answer["outputs"]}
        expected = published.expected[published.old][number]
        np.testing.assert_allclose([found[name] for name in DEFAULT_SERVED], expected, atol=1e-5)


@pytest.mark.parametrize(
    ("length", "expected"),
    [("-1", "must be a number up to"), ("9" * 5000, "must be a number up to"), ("x", "must be"), ("1", "Invalid JSON")],
)
def test_length_of_the_json_is_checked(published, servers, length, expected):
    body = binary_body(published.tensors[0])
    status, answer = send(servers[1], *body, **{"Inference-Header-Content-Length": length})
    assert status == 400 and expected in answer["error"]


@pytest.mark.parametrize(
    ("size", "expected"),
    [
        (-1, "binary_data_size is -1"),
        (2**70, "binary_data_size is 1180591620717411303424"),
        (True, "binary_data_size is True"),
        (0, "bytes follow the contents of all inputs"),
    ],
)
def test_sizes_of_contents_are_checked(published, servers, size, expected):
    described, contents = binary_body(published.tensors[0])
    changed = json.loads(described)
    changed["inputs"][-1]["parameters"]["binary_data_size"] = size
    status, answer = send(servers[1], json.dumps(changed).encode(), contents)
    assert status == 400 and expected in answer["error"]


def test_contents_that_no_shape_asks_for_are_not_decoded(servers):
    """Millions of empty texts under a shape of one are refused as over gRPC."""
    tensor = {"name": "actions.action_type", "shape": [1], "datatype": "BYTES"}
    described = json.dumps({"inputs": [tensor | {"parameters": {"binary_data_size": 12_000_000}}]}).encode()
    status, answer = send(servers[1], described, bytes(12_000_000))
    assert status == 400 and "2 values, its shape [1] says 1" in answer["error"]
