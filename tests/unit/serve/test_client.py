"""The public client against real servers: forms of requests, batches, retries, changing versions, TLS."""

from __future__ import annotations

import asyncio
from datetime import datetime

import grpc
import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from afterclick.client import AsyncRankerClient, FieldError, InputError, RankerClient
from components.features.objectives import DEFAULT_SERVED
from components.serve.tensors import request_tensors

UNAVAILABLE, BUSY = grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.RESOURCE_EXHAUSTED


@pytest.fixture(scope="module")
def request_(published, acting):
    return published.requests[acting]


def columns_of(rows):
    return {name: [row[name] for row in rows] for name in rows[0]}


def as_frame(rows):
    frame = pd.DataFrame(rows)
    if "timestamp" in frame:
        frame["timestamp"] = pd.to_datetime(frame["timestamp"])
    return frame


def as_arrow(rows):
    parsed = [
        row | {"timestamp": datetime.fromisoformat(row["timestamp"])} if "timestamp" in row else row for row in rows
    ]
    return pa.Table.from_pylist(parsed)


def as_rows_of_pandas(rows):
    """With pandas' own marks of what is absent."""
    return [{name: pd.NA if value is None else value for name, value in row.items()} for row in rows]


def in_form(request, form):
    return request | {part: form(request[part]) for part in ("candidates", "actions") if request[part]}


def found_by(ranking):
    return np.stack([ranking.probabilities[name] for name in DEFAULT_SERVED])


FORMS = {
    "rows": list,
    "rows of pandas": as_rows_of_pandas,
    "columns": columns_of,
    "frame": as_frame,
    "extension types": lambda rows: as_frame(rows).convert_dtypes(),
    "arrow": as_arrow,
    "batch": lambda rows: as_arrow(rows).combine_chunks().to_batches()[0],
}


def with_gaps(request):
    """And candidates of which values are absent, which are floats in pandas."""
    gaps = dict.fromkeys(("campaign_id", "price", "item_tags", "item_tag_weights"))
    first = request["candidates"][0]
    return request | {"candidates": [*request["candidates"], first | gaps, first | {"campaign_id": None}, first]}


@pytest.mark.parametrize("form", FORMS)
def test_every_form_gets_the_predictors_probabilities(published, client, form):
    for place in range(0, len(published.requests), 4):
        request = with_gaps(published.requests[place])
        ranking = client.rank(in_form(request, FORMS[form]))
        assert ranking.version == published.old
        found, expected = found_by(ranking), published.expected[published.old][place]
        assert np.abs(found[:, : expected.shape[1]] - expected).max() <= 1e-6
        # From the tensors that servers get of JSON, whose types are guessed from the values.
        assert np.abs(found - found_by(client.rank_tensors(request_tensors(request)))).max() <= 1e-6


def test_requests_of_the_test_have_what_is_hard(published):
    requests = published.requests[::4]
    assert any(row["item_tags"] and row["item_tag_weights"] for request in requests for row in request["candidates"])
    assert any(len(request["actions"]) > 1 for request in requests)


def test_async_client_answers_alike_and_at_the_same_time(published, servers):
    async def ask():
        async with AsyncRankerClient(servers[1].address) as client:
            return await asyncio.gather(*(client.rank(request) for request in published.requests[:8]))

    for ranking, expected in zip(asyncio.run(ask()), published.expected[published.old], strict=False):
        assert np.abs(found_by(ranking) - expected).max() <= 1e-6


def test_what_all_candidates_share_may_be_the_users(published, client, request_, acting):
    first = request_["candidates"][0]
    shared = request_ | {
        "user": request_["user"] | {name: value for name, value in first.items() if name != "item_id"},
        "candidates": [{"item_id": first["item_id"]}] * 3,
    }
    expected = published.expected[published.old][acting][:, :1]
    assert np.abs(found_by(client.rank(shared)) - expected).max() <= 1e-6
    with pytest.raises(FieldError, match="candidates: campaign_id: is among the user's columns, too"):
        client.rank(shared | {"candidates": request_["candidates"]})


def test_more_candidates_than_the_server_allows_are_sent_in_equal_calls(published, relay):
    """In the caller's order, by one version, with lists cut where candidates are."""
    rows = [row for request in published.requests for row in request["candidates"]]
    request = published.requests[0] | {"candidates": (rows * (700 // len(rows) + 1))[:700]}
    with RankerClient(relay.address, timeout_seconds=30) as client:
        whole = found_by(client.rank(request))
        calls = [message for method, message, _ in relay.seen if method == "ModelInfer"]
        sizes = [next(one.shape[0] for one in message.inputs if one.name == "item_id") for message in calls]
        assert sizes == [234, 234, 232]
        assert [message.model_version for message in calls] == ["", published.old, published.old]
    with RankerClient(relay.address, timeout_seconds=30, candidates_per_call=97) as client:
        assert np.abs(found_by(client.rank(request)) - whole).max() <= 1e-6
    alone = [
        found_by(RankerClient(relay.address).rank(request | {"candidates": request["candidates"][k : k + 1]}))
        for k in (0, 233, 234, 699)
    ]
    assert np.abs(np.concatenate(alone, axis=1) - whole[:, [0, 233, 234, 699]]).max() <= 1e-6


def test_messages_are_kept_below_the_servers_limit(relay, published):
    def small(method, request, answer):
        if method == "ServerMetadata":
            kept = [text for text in answer.extensions if not text.startswith("max_message_bytes")]
            answer.extensions[:] = [*kept, "max_message_bytes=20000"]
        return answer

    relay.change = small
    request = published.requests[0] | {"candidates": published.requests[0]["candidates"][:1] * 200, "actions": []}
    with RankerClient(relay.address, timeout_seconds=30) as client:
        probabilities = found_by(client.rank(request))
    assert probabilities.shape[1] == 200 and np.ptp(probabilities, axis=1).max() <= 1e-6
    sizes = [message.ByteSize() for method, message, _ in relay.seen if method == "ModelInfer"]
    assert len(sizes) > 1 and max(sizes) <= 20_000


@pytest.mark.parametrize(
    ("part", "change", "message"),
    [
        ("candidates", {"colour": "red"}, r"candidates: colour: version \w{12} has no such column; it takes \["),
        ("candidates", {"campain_id": 3}, r"candidates: campain_id: .* did you mean 'campaign_id'\?"),
        (
            "candidates",
            {"item_id": "abc"},
            "candidates: item_id = 'abc' in row 1: must be an integer, as in the logs, not",
        ),
        ("candidates", {"item_id": True}, "candidates: item_id = True in row 1: must be an integer"),
        ("candidates", {"item_id": 2**70}, "in row 1: is beyond 64 bits"),
        ("candidates", {"item_id": 7.5}, "candidates: item_id = 7.5 in row 1: must be an integer"),
        ("candidates", {"campaign_id": 2.0**60}, "in row 1: must be an integer, .* floats hold those up to"),
        ("candidates", {"price": "dear"}, "candidates: price = 'dear' in row 1: must be a number, not str"),
        ("candidates", {"item_tags": 3}, "candidates: item_tags = 3 in row 1: expected a list"),
        ("candidates", {"item_tags": [None]}, r"candidates: item_tags = \[None\] in row 1: lists hold no absent"),
        ("candidates", {"item_tag_weights": ["x"]}, "candidates: item_tag_weights = 'x' in row 1: must be a number"),
        ("user", {"timestamp": "2026-01-05T12:00:00"}, "user: timestamp = .* in row 0: must be a moment with its zone"),
        ("user", {"actions": 1}, "user: actions: version"),
        ("actions", {"action_type": 5}, "actions: action_type = 5 in row 0: must be text, as in the logs, not int"),
    ],
)
def test_bad_values_are_named_before_anything_is_sent(relay, request_, part, change, message):
    request = dict(request_, candidates=request_["candidates"][:1] * 2)
    if part == "user":
        request["user"] = request["user"] | change
    else:
        rows = list(request[part]) or [{}]
        place = 1 if part == "candidates" else 0
        rows[place] = rows[place] | change
        request[part] = rows
    with RankerClient(relay.address) as client, pytest.raises(FieldError, match=message) as refused:
        client.rank(request)
    assert refused.value.part == part and refused.value.field in change
    assert relay.asked("ModelInfer") == 0


def test_bad_arrays_are_named_too(client, request_):
    rows = columns_of(request_["candidates"][:1] * 3)
    for change, message in (
        ({"item_id": np.array([1.0, 2.5, 3.0])}, "item_id = 2.5 in row 1: must be an integer"),
        ({"item_id": np.array([1, 2, 2**63], dtype=np.uint64)}, "in row 2: is beyond 64 bits"),
        ({"price": np.ones((3, 1))}, r"candidates: price has shape \[3, 1\]; a column has one dimension"),
        ({"price": [1.0]}, r"candidates: columns must have one length, found"),
        ({"price": 1.0}, "candidates: price is float; a column is a list or an array"),
    ):
        with pytest.raises(InputError, match=message):
            client.rank(request_ | {"candidates": rows | change})
    for wrong, message in ((["x"], "found a list with str"), (7, "found int")):
        with pytest.raises(InputError, match=f"candidates: expected a list of objects, .*{message}"):
            client.rank(request_ | {"candidates": wrong})
