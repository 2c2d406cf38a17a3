"""Requests that servers complete: from ids, a moment and what happened since, the features that the join makes."""

from __future__ import annotations

import asyncio
import http.client
import shutil
import urllib.request
from dataclasses import dataclass
from datetime import date, timedelta
from typing import Any

import numpy as np
import pytest
from prometheus_client.parser import text_string_to_metric_families

from components.common import storage
from components.common.days import microseconds
from components.common.errors import InputError
from components.common.layout import Store
from components.features.hashing import MISSING
from components.features.objectives import DEFAULT_SERVED
from components.features.online_features import ACTIONS_FILE, OnlineFeatures, online_digest
from components.serve.client import RankerClient
from components.serve.config import RankerTierConfig
from components.serve.online_look_ups import OnlineLookUps, known_in, tensors_of_known
from components.serve.ranker_tier import RankerTier
from components.serve.tensors import request_tensors
from tests.published import Published, publish_online_features
from tests.serving import Server, ask_rest, wait_until

UNTIL = "afterclick_online_features_until_timestamp_seconds"


@dataclass(frozen=True)
class Online:
    """Servers that complete requests.

    Attributes:
        client: Of a ranker that does.
        servers: Both tiers.
        published: Their store.
        day: Of the requests.
        refused: What was said before there were online features.
    """

    client: RankerClient
    servers: tuple[Server, Server]
    published: Published
    day: date
    refused: str

    @property
    def features(self):
        return self.published.trained.config.features

    def of_metric(self, tier: int, name: str) -> dict[tuple[str, ...], float]:
        return metric(self.servers[tier], name)

    def lacking(self, request: dict[str, Any], since: str | None = None) -> dict[str, Any]:
        """A request without engagement, and with the actions of its own day only."""
        named = {*self.features.engagement_names}
        since = since or str(self.day)
        return {
            **request,
            "candidates": [{k: v for k, v in one.items() if k not in named} for one in request["candidates"]],
            "actions": [action for action in request["actions"] if action["timestamp"] >= since],
        }


def metric(server: Server, name: str) -> dict[tuple[str, ...], float]:
    with urllib.request.urlopen(f"http://localhost:{server.http_port}/metrics") as answer:
        families = [*text_string_to_metric_families(answer.read().decode())]
    samples = [sample for family in families for sample in family.samples if sample.name == name]
    return {tuple(value for _, value in sorted(sample.labels.items())): sample.value for sample in samples}


def probabilities(ranking):
    return np.stack([ranking.probabilities[name] for name in DEFAULT_SERVED])


@pytest.fixture(scope="module")
def online(published, servers):
    """Online features appear while both tiers serve."""
    day, embedding = published.trained.scored_day, servers[0]
    options = ("--embedding-address", embedding.address, "--set", "online_features=true")
    with Server("ranker", published.store.root, *options) as ranker:
        ranker.wait_ready()
        with RankerClient(ranker.address) as client:
            found = Online(client, (embedding, ranker), published, day, "")
            assert metric(embedding, UNTIL) == {(published.old,): 0}
            with pytest.raises(InputError) as refused:
                client.rank(found.lacking(published.requests[0]))
            publish_online_features(published, day - timedelta(days=1))
            wait_until(lambda: metric(embedding, UNTIL)[published.old,] > 0, embedding)
            yield Online(client, (embedding, ranker), published, day, str(refused.value))


def test_requests_get_the_probabilities_of_their_examples(online, published):
    """Over both tiers, of requests with what happened since midnight, against the evaluator's examples."""
    num_before, num_since = 0, 0
    for request, expected in zip(published.requests, published.expected[published.old], strict=True):
        sent = online.lacking(request)
        num_since += len(sent["actions"])
        num_before += len(request["actions"]) - len(sent["actions"])
        assert np.abs(probabilities(online.client.rank(sent)) - expected).max() <= 1e-5
    assert num_before > 30 and num_since > 3
    connection = http.client.HTTPConnection("localhost", online.servers[1].http_port, timeout=20)
    ranking = ask_rest(connection, request_tensors(sent))
    assert np.abs(probabilities(ranking) - expected).max() <= 1e-5


def test_missing_engagement_is_named_where_there_are_no_online_features(online, published, client):
    assert "inputs of the candidates are missing: item_id_impressions FP32" in online.refused
    with pytest.raises(InputError, match="inputs of the candidates are missing: item_id_impressions FP32"):
        client.rank(online.lacking(published.requests[0]))


def test_what_is_sent_counts(online, published, client, acting):
    """All of it, engagement of some columns, or the actions from some moment on."""
    request, expected = published.requests[acting], published.expected[published.old][acting]
    assert np.abs(probabilities(online.client.rank(request)) - expected).max() <= 1e-5
    half = sorted(action["timestamp"] for action in request["actions"])[len(request["actions"]) // 2]
    assert half < str(online.day)
    assert np.abs(probabilities(online.client.rank(online.lacking(request, half))) - expected).max() <= 1e-5
    first = {"timestamp": f"{online.day - timedelta(days=7)}T00:00:00Z", "action_type": "checkout", "action_id": 1}
    other = {**request, "actions": [{**first, "item_id": request["candidates"][0]["item_id"]}]}
    assert min(action["timestamp"] for action in request["actions"]) > first["timestamp"]
    overridden = probabilities(online.client.rank({**online.lacking(request), "actions": other["actions"]}))
    assert np.abs(overridden - probabilities(client.rank(other))).max() <= 1e-6
    assert np.abs(overridden - expected).max() > 1e-4
    changed = [{**one, "item_id_click_rate": 0.9} for one in request["candidates"]]
    some = [{**one, "item_id_click_rate": 0.9} for one in online.lacking(request)["candidates"]]
    found = probabilities(online.client.rank({**online.lacking(request), "candidates": some}))
    assert np.abs(found - probabilities(client.rank({**request, "candidates": changed}))).max() <= 1e-6
    assert np.abs(found - expected).max() > 1e-4


def test_unknown_user_and_new_item_are_those_without_history(online, published, client):
    request = online.lacking(published.requests[0])
    sent = {**request, "user": {**request["user"], "user_id": 10**12}, "actions": []}
    sent["candidates"] = [{**one, "item_id": 10**12} for one in sent["candidates"]]
    mapped = OnlineFeatures.open(published.store, online.features, online.day - timedelta(days=1))
    of_new = mapped.look_up(0, {"item_id": np.array([MISSING])}).engagement
    own = {name: float(values[0]) for name, values in of_new.items()}
    assert own["item_id_impressions"] == 0
    known = {**published.requests[0]["candidates"][0], **own}
    full = [{**one, **{name: known[name] for name in online.features.engagement_names}} for one in sent["candidates"]]
    before = online.of_metric(1, "afterclick_online_unknown_users_total").get((published.old,), 0)
    found = probabilities(online.client.rank(sent))
    assert np.abs(found - probabilities(client.rank({**sent, "candidates": full}))).max() <= 1e-6
    assert online.of_metric(1, "afterclick_online_unknown_users_total")[published.old,] == before + 1


def test_metrics_say_until_when_and_who_gave_what(online, published):
    assert online.of_metric(0, UNTIL) == {(published.old,): microseconds(online.day) / 1e6}
    name = "afterclick_online_requests_total"
    before = online.of_metric(1, name)
    number = next(n for n, one in enumerate(published.requests) if online.lacking(one)["actions"] != one["actions"])
    online.client.rank({**online.lacking(published.requests[number]), "actions": []})
    online.client.rank(published.requests[number])
    grown = {key[:2]: value - before.get(key, 0) for key, value in online.of_metric(1, name).items()}
    assert grown["engagement", "stored"] == grown["engagement", "sent"] == 1
    assert sum(value for (part, _), value in grown.items() if part == "actions") == 2
    assert grown["actions", "stored"] == 1


def test_server_says_that_inputs_may_be_left_out(online):
    with urllib.request.urlopen(f"http://localhost:{online.servers[1].http_port}/v2") as answer:
        assert '"online_features=True"' in answer.read().decode()


def test_ranker_that_holds_the_tables_completes_requests_too(online, published):
    config = RankerTierConfig(store_uri=published.store.root, online_features=True)
    tier = RankerTier(config)
    tier.load()
    for number in range(5):
        ranking = asyncio.run(tier.rank(request_tensors(online.lacking(published.requests[number]))))
        assert np.abs(probabilities(ranking) - published.expected[published.old][number]).max() <= 1e-5


@pytest.fixture
def copied(online, published, tmp_path):
    """A store with the same online features, and what a server maps of them."""
    shutil.copytree(f"{published.store.root}/online_features", tmp_path / "online_features")
    store = Store(str(tmp_path))
    look_ups = OnlineLookUps(store, asked_for=True)
    look_ups.hold("a", online.features)
    return store, look_ups


def until(look_ups):
    return look_ups._held["a"].until


def test_damaged_ones_are_refused_and_those_before_stay(online, copied):
    """Damaged, half-written and good ones of a later day, in turn."""
    (store, look_ups), settings = copied, online_digest(online.features)
    earlier, later = (store.online_features(settings, online.day - timedelta(days=back)) for back in (1, 0))
    shutil.copytree(earlier, later)
    path = storage.join_uri(later, ACTIONS_FILE)
    whole = storage.read_bytes(path)
    for content in (whole[:-1], whole[:100] + b"\0" + whole[101:]):
        storage.write_bytes(path, content)
        look_ups.refresh()
        assert look_ups.look_up("a", 0, {}) is not None and until(look_ups) == microseconds(online.day)
    manifest = storage.join_uri(later, storage.MANIFEST_NAME)
    described = storage.read_bytes(manifest)
    storage.remove(manifest)
    storage.write_bytes(path, whole)
    look_ups.refresh()
    assert until(look_ups) == microseconds(online.day)
    storage.write_bytes(manifest, described)
    look_ups.refresh()
    assert until(look_ups) == microseconds(online.day + timedelta(days=1))
    # Retention takes the older one, and what is mapped stays.
    shutil.rmtree(later)
    look_ups.refresh()
    assert until(look_ups) == microseconds(online.day + timedelta(days=1))
    assert look_ups.look_up("a", 0, {}) is not None
    look_ups.keep(())
    assert look_ups.look_up("a", 0, {}) is None


def test_other_feature_lists_have_none(online, copied):
    _, look_ups = copied
    values = online.features.model_copy(update={"timezone": "Europe/Berlin"})
    look_ups.hold("b", values)
    assert look_ups.look_up("b", 0, {}) is None and look_ups.look_up("a", 0, {}) is not None


def test_what_comes_over_the_wire_is_what_was_asked_for(online, copied):
    _, look_ups = copied
    user, entities = 7, {"item_id": np.array([1, 2], dtype=np.uint64)}
    known = look_ups.look_up("a", user, entities)
    tensors = tensors_of_known(known)
    again = known_in(tensors, online.features, user, entities)
    assert all(np.array_equal(again.engagement[name], values) for name, values in known.engagement.items())
    assert known_in({}, online.features, user, entities) is None
    for name, values in tensors.items():
        with pytest.raises(InputError, match="expected"):
            known_in(
                {**tensors, name: np.append(values, values[:1] if len(values) else 0)}, online.features, user, entities
            )
        with pytest.raises(InputError, match="expected"):
            known_in({key: own for key, own in tensors.items() if key != name}, online.features, user, entities)
