"""The ranker tier in this process: mixed versions, lost look-ups, limits, and who is routed where."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace

import grpc
import numpy as np
import pytest
from grpc_interceptor.exceptions import DeadlineExceeded, GrpcException, NotFound, ResourceExhausted
from kserve import InferInput, InferRequest
from kserve.protocol.grpc import grpc_predict_v2_pb2_grpc as pb_grpc
from prometheus_client import REGISTRY

from components.common.deployments import Deployment, write_deployment
from components.common.errors import InputError
from components.common.layout import Store
from components.features.objectives import DEFAULT_SERVED
from components.serve import ranker_version
from components.serve.config import EmbeddingTierConfig, RankerTierConfig
from components.serve.embedding_server import EmbeddingServicer
from components.serve.embedding_tier import EmbeddingTier
from components.serve.online_look_ups import OnlineLookUps
from components.serve.ranker_model import RankerModel, _listed
from components.serve.ranker_tier import RankerTier, route
from components.serve.table_source import LocalTables, RemoteTables
from components.serve.tensors import infer_response
from components.version.session import has_gpu
from components.version.version import Version


def tier_of(store, source=None, **settings):
    tier = RankerTier(RankerTierConfig(store_uri=store.root, **settings), source)
    tier.load()
    return tier


def payload_of(tensors, version=""):
    inputs = []
    for name, values in tensors.items():
        kinds = {"i": "INT64", "f": "FP64", "O": "BYTES", "b": "BOOL"}
        tensor = InferInput(name, list(values.shape), kinds[values.dtype.kind])
        tensor.set_data_from_numpy(values)
        inputs.append(tensor)
    return InferRequest(model_name="ranker", infer_inputs=inputs, model_version=version)


class SlowTables(LocalTables):
    """Waits before it answers; says when it is asked and when it is left."""

    def __init__(self, load, seconds):
        super().__init__(load, OnlineLookUps(Store(""), asked_for=False))
        self.seconds, self.asked, self.left = seconds, asyncio.Event(), 0

    async def look_up(self, version, categorical, sequence):
        self.asked.set()
        try:
            await asyncio.sleep(self.seconds)
        except asyncio.CancelledError:
            self.left += 1
            raise
        return await super().look_up(version, categorical, sequence)


def slow_tier(store, seconds, **settings):
    source = SlowTables(lambda digest: Version.published(store, digest).tables(), seconds)
    return tier_of(store, source, **settings), source


def test_one_process_answers_like_two(published, fresh_store):
    tier = tier_of(fresh_store)

    async def ask():
        # The first request may come before anybody asked whether the tier is ready.
        answers = [await tier.rank(tensors) for tensors in published.tensors]
        assert await tier.is_ready()
        return answers

    for ranking, expected in zip(asyncio.run(ask()), published.expected[published.old], strict=True):
        assert ranking.version == published.old
        found = np.stack([ranking.probabilities[name] for name in DEFAULT_SERVED])
        assert np.abs(found - expected).max() < 1e-6


def test_every_version_that_is_loaded_can_be_described(published, fresh_store):
    write_deployment(fresh_store, "local", Deployment(current=published.old, other=published.new, phase="ranker"))
    model = RankerModel(tier_of(fresh_store))
    assert model.versions("") == [published.old, published.new]
    assert model.versions(published.new) == [published.new, published.old]
    assert model.get_input_types(published.new) == model.get_input_types()
    with pytest.raises(NotFound, match="is not served here; there are"):
        model.versions("f" * 64)


def test_rows_of_another_version_are_never_used(published, fresh_store):
    """An embedding tier that answers with the wrong tables, whatever it calls them, gets an error and no ranking."""

    class Confused(EmbeddingServicer):
        def ModelInfer(self, request, context):
            right = super().ModelInfer(request, context)
            if self.lie == "version":
                right.model_version = published.new
            elif self.lie == "rows":
                return infer_response("tables", published.old, {"categorical_rows": np.zeros((1, 1), np.uint8)})
            else:
                right.raw_output_contents[0] = right.raw_output_contents[0][:-1]
            return right

    async def ask(lie):
        embedding = EmbeddingTier(EmbeddingTierConfig(store_uri=fresh_store.root))
        embedding.load()
        servicer = Confused(embedding)
        servicer.lie = lie
        server = grpc.aio.server()
        pb_grpc.add_GRPCInferenceServiceServicer_to_server(servicer, server)
        port = server.add_insecure_port("localhost:0")
        await server.start()
        model = RankerModel(tier_of(fresh_store, RemoteTables(f"localhost:{port}", 2.0)))
        with pytest.raises(GrpcException) as refused:
            await model.predict(payload_of(published.tensors[0]))
        await server.stop(0)
        return refused.value

    for lie in ("version", "rows", "contents"):
        error = asyncio.run(ask(lie))
        assert error.status_code == grpc.StatusCode.INTERNAL and "embedding tier" in error.details, (lie, error)


def test_request_that_is_given_up_gives_up_its_look_up(published, fresh_store):
    tier, source = slow_tier(fresh_store, 5.0)

    async def give_up():
        task = asyncio.create_task(tier.rank(published.tensors[0]))
        await source.asked.wait()
        assert tier._versions[published.old].in_flight == 1
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await asyncio.sleep(0)
        return source.left, tier._versions[published.old].in_flight

    assert asyncio.run(give_up()) == (1, 0)


def test_slow_requests_end_in_time_and_too_many_are_refused(published, fresh_store):
    tier, source = slow_tier(fresh_store, 0.5, request_seconds=0.2, max_requests=3)
    model = RankerModel(tier)

    async def ask_one():
        with model.admitted():
            return await model.predict(payload_of(published.tensors[0]))

    async def ask():
        return await asyncio.gather(*(ask_one() for _ in range(5)), return_exceptions=True)

    found = [type(error) for error in asyncio.run(ask())]
    assert sorted(found, key=str) == [DeadlineExceeded] * 3 + [ResourceExhausted] * 2


def test_version_goes_when_its_last_request_is_answered(published, fresh_store):
    tier, source = slow_tier(fresh_store, 0.4)

    async def retire():
        answering = asyncio.create_task(tier.rank(published.tensors[0]))
        await source.asked.wait()
        write_deployment(fresh_store, "local", Deployment(current=published.new, other=published.old, phase="retiring"))
        retiring = asyncio.create_task(tier.follow())
        while tier.routes != {published.new: 1.0}:
            await asyncio.sleep(0.01)
        assert not retiring.done() and tier.versions == [published.new]
        ranking = await answering
        await retiring
        return ranking.version, (await tier.rank(published.tensors[0])).version

    assert asyncio.run(retire()) == (published.old, published.new)


def test_version_whose_graph_fails_is_refused_before_any_request(published, fresh_store, monkeypatch):
    """Right digests, but it does not run: an error with its name, and a tier that starts without it."""
    write_deployment(fresh_store, "local", Deployment(current=published.old, other=published.new, phase="ranker"))
    real = ranker_version.start_session

    def failing(onnx, where, *settings):
        if published.new not in where:
            return real(onnx, where, *settings)
        error = RuntimeError("bad node\nsecond line")
        return SimpleNamespace(get_providers=lambda: ["CPU"], run=lambda *_: (_ for _ in ()).throw(error))

    monkeypatch.setattr(ranker_version, "start_session", failing)
    tier = tier_of(fresh_store)
    assert tier.versions == [published.old]
    with pytest.raises(InputError, match=r"its ranker does not run \(bad node\)"):
        asyncio.run(tier.follow())


def test_ranker_says_what_it_runs_on_and_a_required_gpu_is_required(fresh_store, published):
    if has_gpu():
        pytest.skip("there is a GPU here")
    tier_of(fresh_store)
    labels = {"version": published.old, "provider": "CPUExecutionProvider"}
    assert REGISTRY.get_sample_value("afterclick_ranker_provider", labels) == 1
    with pytest.raises(InputError, match="runs on CPUExecutionProvider, and require_gpu is set; ONNX Runtime has"):
        tier_of(fresh_store, require_gpu=True)


def test_a_user_is_routed_alike_however_it_is_sent():
    routes = {"a": 0.5, "b": 0.5}
    for number in range(50):
        kinds = [np.array([number], dtype=kind) for kind in (np.int64, np.int32, np.uint8)]
        assert len({route(routes, user) for user in kinds}) == 1
    assert len({route(routes, np.array([name], dtype=object)) for name in (b"u%d" % n for n in range(50))}) == 2


def test_text_is_utf8_in_every_form():
    expected = ["früh".encode()]
    for data in (["früh"], ["früh".encode()]):
        assert _listed(InferInput("x", [1], "BYTES", data=data)).tolist() == expected
    with pytest.raises(InputError, match="none in Unicode"):
        _listed(InferInput("x", [1], "BYTES", data=["\ud800"]))


def test_users_stay_with_their_version_as_shares_grow():
    users = [np.array([number]) for number in range(4000)]
    before: set[int] = set()
    for share in (0.1, 0.5, 0.9, 1.0):
        routes = Deployment(current="a", other="b", phase="routing", share=share).routes
        now = {number for number, user in enumerate(users) if route(routes, user) == "b"}
        assert before <= now and abs(len(now) / len(users) - share) < 0.03
        before = now
    assert route({"a": 0.5, "b": 0.5}, None) in "ab"
