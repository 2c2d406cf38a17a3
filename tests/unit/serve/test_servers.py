"""Both tiers as processes: from raw features to answers, errors, REST and metrics."""

from __future__ import annotations

import json
import re
import socket
import subprocess
import sys
import urllib.error
import urllib.request
from datetime import UTC, datetime

import grpc
import numpy as np
import pytest
from kserve.protocol.grpc import grpc_predict_v2_pb2 as pb

from cli.logged_requests import logged_requests
from components.common.errors import InputError
from components.features.examples import EVALUATION, read_examples
from components.features.objectives import DEFAULT_SERVED, OBJECTIVE_NAMES
from components.ranker.dataset import tensors_of
from components.ranker.prediction import predict
from components.serve.client import RankerClient, ServerError
from components.serve.tensors import infer_request, request_tensors, rest_body
from components.train.training_state import load_state
from components.version.version import Version
from tests.serving import free_port, stub_of
from tests.unit.export.served import take_tables

NOON = "2026-01-05T12:00:00Z"


def probabilities(ranking):
    return np.stack([ranking.probabilities[name] for name in DEFAULT_SERVED])


def test_answers_are_those_of_the_evaluator(trained, published, client):
    """From raw features over both tiers, against the checkpoint in torch on tables as INT4 has them."""
    version = Version.published(published.store, published.old)
    state, _ = load_state(published.store, "baseline", trained.batch_days[-1])
    vectors = take_tables(state.model, version)
    table, _ = read_examples(published.store, EVALUATION, trained.scored_day)
    examples = tensors_of(table, state.features, True, state.indexes, vectors)
    for own in examples.vectors.split(list(state.features.vector_dims), dim=1):
        assert 0.2 < (own == 0).all(dim=1).float().mean() < 0.8
    expected = predict(state.model, state.lineage.negative_keep_rate, examples, 512)
    columns = [OBJECTIVE_NAMES.index(name) for name in DEFAULT_SERVED]
    compared = 0
    for number, logged in enumerate(logged_requests(published.store, trained.scored_day, version.contract())):
        if number % 5 == 0:
            ranking = client.rank(logged.request)
            assert ranking.version == published.old
            assert np.abs(probabilities(ranking).T - expected[logged.rows][:, columns]).max() <= 1e-5
            compared += 1
    assert compared > 100


def test_nobody_there_is_said_so():
    with RankerClient(f"localhost:{free_port()}", timeout_seconds=1.0) as client:
        with pytest.raises(ServerError, match="UNAVAILABLE") as refused:
            client.rank_tensors({})
    assert refused.value.code == "UNAVAILABLE"


def test_a_version_can_be_named_and_another_is_never_taken(published, client):
    assert client.rank(published.requests[0], published.old).version == published.old
    with pytest.raises(ServerError, match=r"NOT_FOUND: version .* is not served here; there are") as refused:
        client.rank(published.requests[0], published.new)
    assert refused.value.code == "NOT_FOUND"


def test_many_candidates_are_one_request(published, client):
    """A user's candidates together get what each gets alone; one value may stand for all."""
    request = published.requests[0]
    others = [other["candidates"][0] for other in published.requests[1:40]]
    together = probabilities(client.rank({**request, "candidates": request["candidates"] + others}))
    for number, candidate in enumerate(request["candidates"] + others[:5]):
        alone = probabilities(client.rank({**request, "candidates": [candidate]}))
        assert np.abs(together[:, number] - alone[:, 0]).max() < 1e-6


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda r: r["user"].pop("user_id"), "inputs of the user are missing: user_id INT64"),
        (lambda r: r["user"].update(user_id="7"), "input 'user_id' is BYTES; it must be INT64"),
        (lambda r: r["user"].update(timestamp="yesterday"), "user: timestamp = 'yesterday': expected a moment"),
        (lambda r: r["user"].update(timestamp="2026-01-05T13:00:00"), "expected a moment with its zone"),
        (lambda r: r["user"].update(timestamp=1768171901), "has 1768171901; it must be microseconds since 1970"),
        (lambda r: r["candidates"].clear(), "inputs of the candidates are missing: item_id INT64, item_id_impr"),
        (lambda r: r["candidates"][0].pop("item_id_click_rate"), "candidates are missing: item_id_click_rate FP32"),
        (lambda r: r["candidates"].append({}), "input 'item_id' must have a value in every row; it has none in row 1"),
        (
            lambda r: r["candidates"][0].update(item_id_click_rate=float("inf")),
            "has inf in row 0; it must be a finite number",
        ),
        (lambda r: r["candidates"][0].update(color="red"), "input 'color' is unknown; the version takes"),
        (
            lambda r: r["candidates"][0].update(campaign_id=[1]),
            "'campaign_id' takes one value for each of the candidates",
        ),
        (lambda r: r.update(candidates=r["candidates"] * 301), "has 301 values: candidates must be from 1 to 300"),
        (lambda r: r.update(actions=[{"action_type": "wink"}]), "input 'actions.timestamp' is missing"),
        (
            lambda r: r.update(actions=[{"timestamp": NOON, "action_type": "wink", "action_id": 1}]),
            "has 'wink'; it must be one of",
        ),
        (lambda r: r.update(extra=1), "a request is an object of"),
    ],
)
def test_bad_requests_say_what_is_wrong(published, client, change, message):
    request = json.loads(json.dumps(published.requests[0]))
    request["actions"] = []
    change(request)
    with pytest.raises(InputError, match=message.replace("[", r"\[")):
        client.rank_tensors(request_tensors(request))


def test_rest_answers_like_grpc(published, servers, client):
    inputs = rest_body(published.tensors[0])["inputs"]
    url = f"http://localhost:{servers[1].http_port}/v2/models/ranker/infer"

    def post(body):
        headers = {"Content-Type": "application/json"}
        with urllib.request.urlopen(urllib.request.Request(url, json.dumps(body).encode(), headers)) as answer:
            return json.load(answer)

    answer = post({"inputs": inputs})
    assert answer["model_version"] == published.old
    found = {output["name"]: output["data"] for output in answer["outputs"]}
    assert (
        np.abs(np.stack([found[name] for name in DEFAULT_SERVED]) - published.expected[published.old][0]).max() < 1e-5
    )
    pinned = {"parameters": {"version": published.old}}
    assert post({"inputs": inputs, **pinned})["model_version"] == published.old

    def changed(**item):
        return [{**tensor, **item} if tensor["name"] == "item_id" else tensor for tensor in inputs]

    for body, code, message in (
        ({"inputs": inputs[1:]}, 400, "are missing"),
        ({"inputs": inputs, "parameters": {"version": published.new}}, 404, "is not served here"),
        ({"inputs": changed(data=["7"])}, 400, "holds '7', which is no INT64"),
        ({"inputs": changed(data=[True])}, 400, "holds 'True', which is no INT64"),
        ({"inputs": changed(data=[None])}, 400, "'item_id.valid'"),
        ({"inputs": changed(shape=[-1])}, 400, "must be a list as long as its shape"),
    ):
        with pytest.raises(urllib.error.HTTPError) as refused:
            post(body)
        assert refused.value.code == code and message in json.load(refused.value)["error"]


def test_health_and_metrics(published, servers, client):
    client.rank(published.requests[0])
    texts = {}
    for server in servers:
        with urllib.request.urlopen(f"http://localhost:{server.http_port}/metrics") as answer:
            texts[server.tier] = answer.read().decode()
    for tier, text in texts.items():
        assert f'afterclick_requests_total{{code="OK",tier="{tier}",version="{published.old}"}}' in text
        assert f'afterclick_version_loaded{{tier="{tier}",version="{published.old}"}} 1.0' in text
    assert "afterclick_look_up_seconds_bucket" in texts["ranker"]
    assert "afterclick_rows_looked_up_total" in texts["embedding"]
    unknown = rf'afterclick_unknown_ids_total{{table="campaign_id",version="{published.old}"}} (\d+)'
    (number,) = re.findall(unknown, texts["embedding"])
    assert int(number) > 0, "some of the campaigns that were asked for have no row of their own"
    for server, path in zip(servers, ("ready", "v2/health/ready"), strict=True):
        with urllib.request.urlopen(f"http://localhost:{server.http_port}/{path}") as answer:
            assert json.load(answer)["ready"] is True


def test_typed_contents_are_taken_too(published, servers):
    """The protocol's other form, without raw contents."""
    tensors = next(tensors for tensors in published.tensors if "actions.action_type" in tensors)
    raw, typed = infer_request("ranker", "", tensors), infer_request("ranker", "", tensors)
    del typed.raw_input_contents[:]
    for tensor in typed.inputs:
        getattr(tensor.contents, f"{tensor.datatype.lower()}_contents").extend(tensors[tensor.name].tolist())
    answers = [stub_of(servers[1]).ModelInfer(message, timeout=10) for message in (raw, typed)]
    assert answers[0].raw_output_contents == answers[1].raw_output_contents != []


def test_idle_connection_does_not_hold_up_health(servers):
    with socket.create_connection(("localhost", servers[0].http_port)):
        with urllib.request.urlopen(f"http://localhost:{servers[0].http_port}/live", timeout=5) as answer:
            assert answer.status == 200


def test_logs_are_json_lines(servers):
    for server in servers:
        lines = [json.loads(line) for line in server.log.read_text().splitlines()]
        loaded = next(line for line in lines if line["message"].endswith("loaded"))
        assert loaded["version"] and datetime.fromisoformat(loaded["time"]).tzinfo == UTC


def test_embedding_tier_refuses_what_it_cannot_answer(published, servers):
    stub, ids = stub_of(servers[0]), published.ids(1)
    for arrays, message in (
        ({"categorical": ids + 10**9}, "must be from 0"),
        ({"categorical": ids - 1}, "id -1 of"),
        ({"categorical": ids[:, :3]}, "3 columns"),
        ({"categorical": ids[0]}, "2 dimensions"),
        ({"other": ids}, "other"),
        ({}, "none"),
    ):
        with pytest.raises(grpc.RpcError) as refused:
            stub.ModelInfer(infer_request("tables", published.old, arrays), timeout=10)
        assert refused.value.code().name == "INVALID_ARGUMENT" and message in refused.value.details(), refused.value
    with pytest.raises(grpc.RpcError) as refused:
        stub.ModelInfer(infer_request("tables", published.new, {"categorical": ids}), timeout=10)
    assert refused.value.code().name == "FAILED_PRECONDITION" and "are not loaded; there" in refused.value.details()
    assert stub.ModelReady(pb.ModelReadyRequest(name="tables", version=published.old)).ready
    assert not stub.ModelReady(pb.ModelReadyRequest(name="tables", version=published.new)).ready
    assert list(stub.ModelMetadata(pb.ModelMetadataRequest(name="tables")).versions) == [published.old]


def test_second_server_on_a_port_is_refused(published, servers):
    for server in servers:
        command = [sys.executable, "-m", "cli.serve", server.tier, "--store", published.store.root]
        ports = ["--grpc-port", str(server.grpc_port), "--http-port", str(free_port())]
        found = subprocess.run([*command, *ports], capture_output=True, text=True, check=False, timeout=60)
        assert found.returncode == 1 and "Traceback" not in found.stderr
        assert f"port {server.grpc_port} is in use; choose another with --grpc-port" in found.stderr


def test_oversized_messages_are_refused_and_the_servers_live_on(published, servers, client):
    big = {"user_id": np.zeros(3_000_000, dtype=np.int64)}
    for server, model in zip(servers, ("tables", "ranker"), strict=True):
        with pytest.raises(grpc.RpcError) as refused:
            stub_of(server).ModelInfer(infer_request(model, "", big), timeout=20)
        assert refused.value.code() == grpc.StatusCode.RESOURCE_EXHAUSTED
    assert client.rank(published.requests[0]).version == published.old
