"""The description of the REST API against a real server: everything that it promises is provoked."""

from __future__ import annotations

import http.client
import json
import socket
import threading
from types import SimpleNamespace

import grpc
import jsonschema
import pytest

from components.serve.tensors import rest_body
from tests.relay import Relay
from tests.serving import Server, post, stub_of

MAX_MESSAGE_BYTES, REQUEST_SECONDS = 2**16, 1.0
INFER = "/v2/models/ranker/infer"
HEAD = f"POST {INFER} HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n".encode()


@pytest.fixture(scope="module")
def described(published, servers):
    """A ranker with small limits behind an embedding tier that fails when it is told to."""
    settings = {"max_requests": 1, "request_seconds": REQUEST_SECONDS, "look_up_seconds": 60}
    settings["max_message_bytes"] = MAX_MESSAGE_BYTES
    options = [text for name, value in settings.items() for text in ("--set", f"{name}={value}")]
    with Relay(stub_of(servers[0])) as relay:
        with Server("ranker", published.store.root, "--embedding-address", relay.address, *options) as ranker:
            ranker.wait_ready()
            status, document = get(ranker, "/openapi.json")
            assert status == 200
            yield SimpleNamespace(ranker=ranker, relay=relay, document=document)


def get(server, path):
    connection = http.client.HTTPConnection("localhost", server.http_port, timeout=20)
    connection.request("GET", path)
    answer = connection.getresponse()
    return answer.status, json.loads(answer.read())


def check(described, path, method, status, answer):
    """That the document has this answer."""
    operation = described.document["paths"][path][method]
    response = operation["responses"][str(status)]
    check_schema(described, schema_of(described, response), answer)


def schema_of(described, response):
    if "$ref" in response:
        response = described.document["components"]["responses"][response["$ref"].rsplit("/", 1)[-1]]
    return response["content"]["application/json"]["schema"]


def check_schema(described, schema, value):
    whole = {**schema, "components": described.document["components"]}
    jsonschema.Draft202012Validator(whole).validate(value)


def test_document_is_one(described):
    assert described.document["openapi"] == "3.1.0" and described.document["info"]["version"]
    for schema in described.document["components"]["schemas"].values():
        jsonschema.Draft202012Validator.check_schema(schema)
    limits = described.document["info"]["x-limits"]
    assert limits["max_message_bytes"] == MAX_MESSAGE_BYTES and limits["request_seconds"] == REQUEST_SECONDS
    stated = get(described.ranker, "/v2")[1]["extensions"]
    assert {f"{name}={value}" for name, value in limits.items() if name.startswith("max_")} <= {*stated}


def test_what_is_asked_without_a_body_answers_as_described(described, published):
    for path, operations in described.document["paths"].items():
        if "get" in operations:
            status, answer = get(described.ranker, path)
            assert status == 200, path
            check(described, path, "get", status, answer)
    assert get(described.ranker, "/v2/models/ranker")[1]["versions"] == [published.old]


def ask(described, body, **headers):
    connection = http.client.HTTPConnection("localhost", described.ranker.http_port, timeout=20)
    try:
        return post(connection, body, **headers)
    finally:
        connection.close()


def late_body(described, body):
    """A body that does not come; while it holds the one place, others are refused."""
    with socket.create_connection(("localhost", described.ranker.http_port), timeout=20) as client:
        client.sendall(HEAD)
        while (busy := ask(described, body))[0] == 200:
            pass
        late = http.client.HTTPResponse(client)
        late.begin()
        return busy, (late.status, json.loads(late.read()))


def failing_tables(described, body, status):
    # The ranker's own look-ups ask up to five times.
    described.relay.refusals = [status] * 5
    found = ask(described, body)
    described.relay.refusals.clear()
    return found


def slow_tables(described, body):
    answered = threading.Event()

    def wait(method, request, answer):
        answered.wait(20)
        return answer

    described.relay.change = wait
    found = ask(described, body)
    answered.set()
    described.relay.change = lambda method, request, answer: answer
    return found


def test_every_status_is_provoked(described, published):
    body = rest_body(published.tensors[0])
    check_schema(described, {"$ref": "#/components/schemas/InferRequest"}, body)
    busy, late = late_body(described, body)
    code = grpc.StatusCode
    found = [
        (200, ask(described, body)),
        (200, ask(described, rest_body(published.tensors[0], published.old))),
        (400, ask(described, b"{")),
        (400, ask(described, {"inputs": body["inputs"][1:]})),
        (404, ask(described, rest_body(published.tensors[0], "f" * 64))),
        (408, late),
        (409, failing_tables(described, body, code.FAILED_PRECONDITION)),
        (413, ask(described, b" " * (MAX_MESSAGE_BYTES + 1))),
        (429, busy),
        (500, failing_tables(described, body, code.INTERNAL)),
        (503, failing_tables(described, body, code.UNAVAILABLE)),
        (504, slow_tables(described, body)),
    ]
    for expected, (status, answer) in found:
        assert status == expected, (expected, answer)
        check(described, INFER, "post", status, answer)
    promised = described.document["paths"][INFER]["post"]["responses"]
    assert {str(status) for status, _ in found} == promised.keys()


def test_server_without_tables_says_so_as_described(described):
    def not_ready(method, request, answer):
        if method == "ModelMetadata":
            del answer.versions[:]
        return answer

    described.relay.change = not_ready
    try:
        status, answer = get(described.ranker, "/v2/health/ready")
        assert status == 503
        check(described, "/v2/health/ready", "get", status, answer)
    finally:
        described.relay.change = lambda method, request, answer: answer
