"""What the public client does when servers refuse, go, change or want to know who asks."""

from __future__ import annotations

import asyncio
import subprocess
import sys

import grpc
import numpy as np
import pytest

from afterclick.client import AsyncRankerClient, Connection, InputError, RankerClient, ServerError
from components.features.objectives import DEFAULT_SERVED
from tests.certificates import Authority
from tests.relay import Relay
from tests.serving import free_port, stub_of

UNAVAILABLE, BUSY = grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.RESOURCE_EXHAUSTED


@pytest.fixture(scope="module")
def request_(published, acting):
    return published.requests[acting]


def found_by(ranking):
    return np.stack([ranking.probabilities[name] for name in DEFAULT_SERVED])


@pytest.mark.parametrize("status", [UNAVAILABLE, BUSY, grpc.StatusCode.CANCELLED])
def test_refusals_that_pass_are_asked_again(relay, request_, status):
    relay.refusals = [status] * 3
    with RankerClient(relay.address) as client:
        assert client.rank(request_).version
    assert relay.asked("ModelInfer") == 4


def test_other_refusals_are_not_asked_again(relay, request_, published):
    with RankerClient(relay.address) as client:
        for status in (
            grpc.StatusCode.INTERNAL,
            grpc.StatusCode.FAILED_PRECONDITION,
            grpc.StatusCode.DEADLINE_EXCEEDED,
        ):
            relay.refusals = [status]
            relay.seen.clear()
            with pytest.raises(ServerError, match="refused by the relay") as refused:
                client.rank(request_)
            assert refused.value.code == status.name and relay.asked("ModelInfer") == 1
        relay.seen.clear()
        with pytest.raises(ServerError, match="inputs of the candidates are missing: item_id INT64"):
            client.rank(request_ | {"candidates": []})
        # What the version takes was asked once more, and had not changed.
        assert (relay.asked("ModelInfer"), relay.asked("ModelMetadata")) == (1, 1)


def test_refusal_of_one_of_several_calls_says_of_which(relay, request_):
    rows = [request_["candidates"][0]] * 50 + [request_["candidates"][0] | {"item_id": None}]
    with RankerClient(relay.address, candidates_per_call=20) as client:
        with pytest.raises(ServerError, match=r"'item_id' .* none in row 16 \(of candidates 34 to 50\)"):
            client.rank(request_ | {"candidates": rows})


def test_time_out_is_of_the_whole_request_and_says_why(relay, request_):
    relay.refusals = [BUSY] * 1000
    with RankerClient(relay.address, timeout_seconds=30) as client:
        with pytest.raises(
            ServerError, match=r"RESOURCE_EXHAUSTED: refused by the relay \(asked \d+ times\)"
        ) as refused:
            client.rank(request_, timeout_seconds=0.5)
    assert refused.value.attempts == relay.asked("ModelInfer") > 1


def test_requests_take_turns_and_go_elsewhere_when_a_server_goes(relay, servers, request_, published):
    """The one server goes between two calls of one request."""
    with Relay(stub_of(servers[1])) as other:
        with RankerClient([relay.address, other.address]) as client:
            for _ in range(10):
                client.rank(request_)
            assert min(relay.asked("ModelInfer"), other.asked("ModelInfer")) >= 3

        def go(method, request, answer):
            if method == "ModelInfer":
                relay.stop(grace_seconds=5.0)
            return answer

        relay.change = go
        relay.seen.clear()
        many = request_ | {"candidates": request_["candidates"][:1] * 40}
        with RankerClient(f"{relay.address},{other.address}", candidates_per_call=1, timeout_seconds=30) as client:
            probabilities = found_by(client.rank(many))
        assert relay.asked("ModelInfer") == 1
        assert probabilities.shape[1] == 40 and np.ptp(probabilities, axis=1).max() <= 1e-6


def test_async_client_goes_elsewhere_too(relay, request_):
    async def ask():
        addresses = [f"localhost:{free_port()}", relay.address]
        async with AsyncRankerClient(addresses) as client:
            return [await client.rank(request_) for _ in range(4)]

    relay.refusals = [BUSY, UNAVAILABLE]
    assert len({ranking.version for ranking in asyncio.run(ask())}) == 1


def without_price(*versions):
    def change(method, request, answer):
        if method == "ModelMetadata" and not request.version:
            kept = [one for one in answer.inputs if one.name != "price"]
            del answer.inputs[:]
            answer.inputs.extend(kept)
            answer.versions[:] = versions or answer.versions
        return answer

    return change


def test_what_a_version_takes_is_asked_once_and_again_when_it_changes(relay, request_, published, acting):
    relay.change = without_price()
    priced = request_
    bare = request_ | {"candidates": [{k: v for k, v in row.items() if k != "price"} for row in priced["candidates"]]}
    with RankerClient(relay.address) as client:
        for _ in range(3):
            client.rank(bare)
        assert relay.asked("ModelMetadata") == relay.asked("ServerMetadata") == 1
        relay.change = lambda method, request, answer: answer
        found = found_by(client.rank(priced))
        assert relay.asked("ModelMetadata") == 2
    assert np.abs(found - published.expected[published.old][acting]).max() <= 1e-6


def test_user_of_the_next_version_loses_no_column(relay, request_, published, acting):
    """The caller already sends what only the next version takes, and the client does not know that version yet."""
    described = ["0" * 64]

    def change(method, request, answer):
        if method == "ServerMetadata":
            answer.extensions[:] = [text.replace("inputs=False", "inputs=True") for text in answer.extensions]
        return without_price(*described)(method, request, answer)

    relay.change = change
    with RankerClient(relay.address) as client:
        for expected_calls in (2, 1):
            relay.seen.clear()
            found = found_by(client.rank(request_))
            assert np.abs(found - published.expected[published.old][acting]).max() <= 1e-6
            assert relay.asked("ModelInfer") == expected_calls
            described.append(published.old)


def test_servers_that_state_nothing_are_asked_all_the_same(relay, request_, published, acting):
    def silent(method, request, answer):
        if method != "ModelInfer":
            del (answer.versions if method == "ModelMetadata" else answer.extensions)[:]
        return answer

    relay.change = silent
    with RankerClient(relay.address) as client:
        found = found_by(client.rank(request_))
    assert np.abs(found - published.expected[published.old][acting]).max() <= 1e-6


def test_pinned_version_that_is_not_served_is_named(client, published):
    with pytest.raises(ServerError, match="is not served here; there are") as refused:
        client.rank(published.requests[0], "f" * 64)
    assert refused.value.code == "NOT_FOUND"


def test_tls_client_certificate_and_token(servers, request_, tmp_path):
    authority = Authority("authority")
    contents = dict(zip(("certificate", "key"), authority.issue(), strict=True))
    for name, content in {**contents, "ca": authority.pem}.items():
        (tmp_path / name).write_bytes(content)
    own = {name: str(tmp_path / name) for name in contents}
    files, pair = {"ca": str(tmp_path / "ca")}, tuple(reversed(authority.issue()))
    credentials = grpc.ssl_server_credentials([pair], authority.pem, require_client_auth=True)
    tokens = iter(("one", "two", "three", "four"))
    with Relay(stub_of(servers[1]), credentials) as relay:
        with RankerClient(relay.address, 10, Connection(**files, **own, bearer_token=lambda: next(tokens))) as client:
            assert client.rank(request_).version
            client.rank(request_)
        sent = [metadata["authorization"] for *_, metadata in relay.seen]
        assert sent == ["Bearer one", "Bearer two", "Bearer three", "Bearer four"]
        with RankerClient(relay.address, 0.3, Connection(**files)) as client:
            with pytest.raises(ServerError) as refused:
                client.rank(request_)
        assert refused.value.code == "UNAVAILABLE"

        async def ask():
            connection = Connection(**files, **own, bearer_token="five")
            async with AsyncRankerClient(relay.address, 10, connection) as client:
                return await client.rank(request_)

        assert asyncio.run(ask()).version and relay.seen[-1][2]["authorization"] == "Bearer five"


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"certificate": "a.pem"}, "connection: key is missing"),
        ({"key": "a.pem"}, "connection: certificate is missing"),
        ({"bearer_token": "secret"}, "connection: bearer_token would be readable on the way"),
        ({"server_name": "ranker"}, "connection: server_name is of a certificate"),
        ({"ca": "/nowhere/ca.pem"}, "/nowhere/ca.pem: the certificate or key cannot be read"),
    ],
)
def test_connections_that_cannot_be_meant_are_refused(settings, message):
    with pytest.raises(InputError, match=message):
        RankerClient("localhost:1", connection=Connection(**settings))


def test_other_settings_that_cannot_be_meant_are_refused():
    for arguments, message in (
        (("http://ranker:8080",), "address 'http://ranker:8080': expected host:port"),
        (("ranker",), "address 'ranker': expected host:port"),
        (([],), "expected host:port"),
        (("ranker:1", 0), "timeout_seconds = 0: must be a number above 0"),
        (("ranker:1", 1.0, None, 0), "candidates_per_call = 0: must be 1 or more"),
    ):
        with pytest.raises(InputError, match=message):
            RankerClient(*arguments)


def test_client_needs_little(servers, published):
    """It asks a server where nothing but grpc, NumPy and protobuf can be imported, and of KServe only its messages."""
    code = """
import json, sys
from importlib.metadata import packages_distributions

allowed = {"numpy", "grpc", "grpc_tools", "google", "typing_extensions", "kserve", "afterclick", "components"}
blocked = set(packages_distributions()) - allowed - set(sys.stdlib_module_names)


class OnlyAllowed:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in blocked:
            raise ModuleNotFoundError(f"{name} is not needed", name=name)


sys.meta_path.insert(0, OnlyAllowed())
from afterclick.client import RankerClient

with RankerClient(sys.argv[1]) as client:
    print(client.rank(json.loads(sys.stdin.read())).version)
print(sorted({"kserve", "torch", "pandas", "pyarrow", "onnxruntime", "pydantic", "fastapi"} & set(sys.modules)))
"""
    command = [sys.executable, "-W", "ignore", "-c", code, servers[1].address]
    asked = subprocess.run(
        command, input=__import__("json").dumps(published.requests[0]), capture_output=True, text=True
    )
    assert asked.stdout == f"{published.old}\n[]\n", asked.stderr
