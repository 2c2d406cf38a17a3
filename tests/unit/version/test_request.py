"""Requests: tensors from JSON and back from the wire, and what the contract refuses."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from components.common.errors import InputError
from components.features.encoding import encode
from components.features.example_columns import categorical_columns, count_columns, sequence_columns
from components.features.feature_kinds import ListFeature
from components.features.feature_list import FeatureConfig
from components.features.hashed_actions import HashedActions
from components.features.hashing import feature_ids, hash_identifiers
from components.features.log_events import Events
from components.serve.tensors import arrays_of, infer_request, request_tensors, texts_array
from components.version.request import Limits, RequestContract

FEATURES = FeatureConfig.parse(
    {
        "categorical": [{"name": name, "num_rows": 97} for name in ("user_id", "item_id", "brand", "hour_of_day")],
        "sequence": {"length": 3, "entities": ["item_id"]},
        "counts": {"entities": ["item_id"], "action_types": ["click"], "windows_days": [7]},
        "engagement": {"entities": ["item_id"]},
        "numbers": ["price"],
    },
    "features",
)
CONTRACT = RequestContract(
    FEATURES,
    {
        "impressions": {"user_id": "string", "item_id": "int64", "brand": "string"},
        "actions": {"action_id": "int64", "item_id": "int64"},
    },
)
RATES = dict.fromkeys(FEATURES.engagement_names, 0.25)
REQUEST = {
    "user": {"user_id": "ann", "timestamp": "2026-01-05T13:00:00Z"},
    "candidates": [
        {"item_id": 7, "brand": "acme", "price": 3, **RATES},
        {"item_id": 8, "brand": None, "price": None, **RATES},
    ],
    "actions": [
        {"timestamp": "2026-01-05T12:00:00Z", "action_type": "click", "action_id": 1, "item_id": 7},
        {"timestamp": "2026-01-05T12:00:00Z", "action_type": "checkout", "action_id": 2, "item_id": None},
        {"timestamp": "2026-01-05T13:00:00Z", "action_type": "click", "action_id": 3, "item_id": 8},
    ],
}


@pytest.mark.parametrize(("part", "name"), [("user", "user_id"), ("actions", "action_id")])
def test_empty_identifier_is_none_as_in_the_logs(part, name):
    identifiers = {"impressions": {"user_id": "string", "item_id": "int64"}, "actions": {"action_id": "string"}}
    contract = RequestContract(FEATURES, identifiers)
    acted = [dict(action, action_id=str(action["action_id"]), item_id=None) for action in REQUEST["actions"]]
    request = {**REQUEST, "actions": acted}
    contract.read(request_tensors(request), Limits())
    changed = {**request["user"], name: ""} if part == "user" else [*acted[:1], {**acted[1], name: ""}]
    tensors = request_tensors({**request, part: changed})
    with pytest.raises(InputError, match=rf"{name}' is empty in row {0 if part == 'user' else 1}"):
        contract.read(tensors, Limits())


@pytest.mark.parametrize("wrong", [1e308, -1e39, float("inf")])
def test_numbers_are_those_of_32_bits(wrong):
    tensors = request_tensors(REQUEST)
    tensors["price"] = np.array([wrong, 1.0])
    with pytest.raises(InputError, match="input 'price' has .* in row 0; it must be a finite number of 32 bits"):
        CONTRACT.read(tensors, Limits())


def test_tensors_are_derived_from_the_feature_list():
    found = {(field.name, field.datatype, field.required) for field in CONTRACT.fields.values()}
    assert found == {
        ("timestamp", "INT64", True),
        ("user_id", "BYTES", True),
        ("item_id", "INT64", True),
        ("brand", "BYTES", False),
        ("price", "FP32", False),
        *((name, "FP32", True) for name in FEATURES.engagement_names),
        ("actions.timestamp", "INT64", True),
        ("actions.action_type", "BYTES", True),
        ("actions.action_id", "INT64", True),
        ("actions.item_id", "INT64", False),
    }


@pytest.mark.parametrize(("zone", "hour"), [("UTC", 13), ("Europe/Berlin", 14), ("America/New_York", 8)])
def test_hours_are_by_the_clocks_of_the_versions_time_zone(zone, hour):
    identifiers = {"impressions": {"user_id": "string", "item_id": "int64", "brand": "string"}, "actions": {}}
    contract = RequestContract(FEATURES.model_copy(update={"timezone": zone}), identifiers)
    acted = [{**action, "action_id": str(action["action_id"]), "item_id": None} for action in REQUEST["actions"]]
    request = contract.read(request_tensors({**REQUEST, "actions": acted}), Limits())
    assert categorical_columns(request.candidates, contract.features)["hour_of_day"].tolist() == [hour, hour]
    assert (request.user.times[0] - request.actions.times).tolist() == [3_600_000_000, 3_600_000_000, 0]


def test_features_are_those_of_the_join():
    """Ids, sequence and counts against the functions of the join on tables written by hand."""
    request = CONTRACT.read(request_tensors(REQUEST), Limits())
    categorical, sequence, lengths = CONTRACT.ids(request)
    moments = pa.array([1767618000000000] * 2, pa.timestamp("us", "UTC"))
    rows = Events.of(
        pa.table({"timestamp": moments, "user_id": ["ann"] * 2, "item_id": [7, 8], "brand": ["acme", None]})
    )
    events = Events.of(
        pa.table(
            {
                "timestamp": pa.array([1767614400000000] * 2 + [1767618000000000], pa.timestamp("us", "UTC")),
                "user_id": ["ann"] * 3,
                "action_type": ["click", "checkout", "click"],
                "action_id": [1, 2, 3],
                "item_id": pa.array([7, None, 8], pa.int64()),
            }
        )
    )
    acted = HashedActions.of(events, FEATURES)
    counts = count_columns(rows, acted, FEATURES)
    columns = {
        **categorical_columns(rows, FEATURES),
        **counts,
        **sequence_columns(rows, acted, FEATURES),
        **{name: np.full(2, 0.25) for name in FEATURES.engagement_names},
        "price": np.array([3.0, 0.0]),
    }
    expected = encode(pa.table(columns), FEATURES)
    assert np.array_equal(categorical, expected.categorical) and np.array_equal(sequence[0], expected.sequence[0])
    assert lengths.tolist() == [2] and np.array_equal(CONTRACT.dense(request), expected.dense)
    # The action at the very moment of the request is not before it.
    assert counts["user_item_id_click_7d"].tolist() == [1, 0]


def test_one_value_stands_for_all_candidates_and_actions_may_be_absent():
    tensors = request_tensors({**REQUEST, "actions": []})
    alike = {**tensors, "brand": np.array([b"acme", None], dtype=object)[:1]}
    del alike["brand.valid"]
    request = CONTRACT.read(alike, Limits())
    assert request.candidates.hashed("brand").tolist() == [*hash_identifiers(pa.array(["acme"])).tolist()] * 2
    assert CONTRACT.ids(request)[2].tolist() == [0]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"user_id": np.array([b"a", b"b"], dtype=object)}, "'user_id' has 2 values, the request has 1 of user"),
        ({"item_id": np.array([[7, 8]])}, r"'item_id' has shape \[1, 2\]; it must have one dimension"),
        ({"item_id": np.array([7.5, 8.0])}, "'item_id' is float64; it must be INT64"),
        ({"brand": np.array([b"\xff", b"b"], dtype=object)}, "'brand' holds bytes that are not UTF-8"),
        ({"brand.valid": np.array([1, 0])}, "'brand.valid' is int64; it must be BOOL"),
        ({"item_id.valid": np.array([True, False])}, "'item_id' must have a value in every row; it has none in row 1"),
        ({"timestamp": np.array([1767618000])}, "has 1767618000; it must be microseconds since 1970"),
        ({"timestamp": np.array([1767618000000])}, "has 1767618000000; it must be microseconds since 1970"),
        ({"price": np.array([True, False])}, "'price' is bool; it must be FP32"),
        ({"item_id_impressions": np.array([np.nan, 1.0])}, "'item_id_impressions' has nan"),
        ({"timestamp": np.array([2**62])}, "from 2000 to 2100"),
        ({"actions.item_id": np.arange(9)}, "values, the request has 9 of actions"),
        ({"item_id": np.arange(2001)}, "'item_id' has 2001 values: candidates must be from 1 to 2000"),
    ],
)
def test_what_does_not_fit_is_named(change, message):
    with pytest.raises(InputError, match=message):
        CONTRACT.read(request_tensors(REQUEST) | change, Limits())


def test_columns_of_another_version_may_be_ignored():
    tensors = request_tensors(REQUEST)
    more = tensors | {"color": np.array([1, 2]), "color.valid": np.array([True, False])}
    with pytest.raises(InputError, match="'color' is unknown"):
        CONTRACT.read(more, Limits())
    read = [CONTRACT.read(found, Limits(ignore_unknown=True)) for found in (tensors, more)]
    assert np.array_equal(*(CONTRACT.ids(request)[0] for request in read))


LISTS = FEATURES.model_copy(
    update={
        "lists": (
            ListFeature(name="tags", num_rows=16, length=2, weights="tag_weights"),
            ListFeature(name="words", num_rows=16, length=2, pooling="sum"),
        )
    }
)
OF_LISTS = RequestContract(
    FeatureConfig.parse(LISTS.model_dump(mode="json"), "features"),
    {"impressions": {"user_id": "string", "item_id": "int64", "brand": "string", "tags": "int64"}, "actions": {}},
)


def lists_request(first: dict, second: dict) -> dict[str, np.ndarray]:
    candidates = [REQUEST["candidates"][0] | first, REQUEST["candidates"][1] | second]
    return request_tensors({**REQUEST, "candidates": candidates, "actions": []})


def test_lists_come_behind_each_other_beside_their_lengths():
    tensors = lists_request({"tags": [5, 6, 7], "tag_weights": [1, 0, 3]}, {"tags": None, "words": ["a", "b"]})
    assert tensors["tags"].tolist() == [5, 6, 7] and tensors["tags.lengths"].tolist() == [3, 0]
    assert tensors["words.lengths"].tolist() == [0, 2]
    request = OF_LISTS.read(tensors, Limits())
    ids, dense = OF_LISTS.ids(request)[0][:, -4:], OF_LISTS.dense(request)[:, -4:]
    hashes = {value: int(feature_ids(hash_identifiers(pa.array([value])))[0]) % 16 for value in (5, 7, "a", "b")}
    assert ids.tolist() == [[hashes[5], hashes[7], 0, 0], [0, 0, hashes["a"], hashes["b"]]]
    assert dense.tolist() == [[0.25, 0.75, 0, 0], [0, 0, 1, 1]]


def test_one_list_stands_for_all_candidates_and_lists_may_be_absent():
    plain = request_tensors({**REQUEST, "actions": []})
    read = OF_LISTS.read(plain | {"words": texts_array(["a"], ""), "words.lengths": np.array([1])}, Limits())
    assert OF_LISTS.dense(read)[:, -4:].tolist() == [[0, 0, 1, 0]] * 2
    assert OF_LISTS.dense(OF_LISTS.read(plain, Limits()))[:, -4:].tolist() == [[0, 0, 0, 0]] * 2


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"tags": np.array([1, 2])}, "'tags.lengths' is missing: INT64, how many values"),
        ({"tags": np.array([1]), "tags.lengths": np.array([2, 0])}, "'tags' has 1 values, 'tags.lengths' says 2"),
        ({"tags.lengths": np.array([-1, 1])}, "'tags.lengths' must be INT64, each from 0 to 1000"),
        ({"tags.lengths": np.array([1, 2, 3])}, "'item_id' has 2 values, the request has 3 of candidates"),
        ({"tags": np.array([1, 2]), "tags.lengths": np.array([1, 1])}, "tag_weights has rows with another number"),
        ({"words": np.array([1, 2]), "words.lengths": np.array([1, 1])}, "'words' is int64; it must be BYTES"),
        (
            {
                "tags": np.array([1]),
                "tags.lengths": np.array([1, 0]),
                "tag_weights": np.array([-2.0]),
                "tag_weights.lengths": np.array([1, 0]),
            },
            r"'tag_weights' has -2.0; weights are 0 or more",
        ),
    ],
)
def test_lists_that_do_not_fit_are_named(change, message):
    with pytest.raises(InputError, match=message):
        OF_LISTS.read(request_tensors({**REQUEST, "actions": []}) | change, Limits())


@pytest.mark.parametrize("wrong", [[1, None], [[1]], "a", [1, "a"]])
def test_lists_in_json_are_of_one_kind(wrong):
    with pytest.raises(InputError, match="candidates: tags: (expected a list|values must be all text or all numbers)"):
        lists_request({"tags": wrong}, {"tags": [1]})


VALUES = st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=4), st.lists(st.integers()))


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_any_json_is_read_or_refused(data):
    """Values of any kind anywhere: features come out, or an error that can be shown."""
    draw, request = data.draw, {part: REQUEST[part] for part in REQUEST}
    part = draw(st.sampled_from(list(REQUEST)))
    rows = [dict(row) for row in ([request[part]] if part == "user" else request[part])]
    for _ in range(draw(st.integers(1, 3))):
        row = draw(st.sampled_from(rows))
        row[draw(st.sampled_from([*row, "other"]))] = draw(VALUES)
    request[part] = rows[0] if part == "user" else rows
    try:
        read = CONTRACT.read(request_tensors(request), Limits())
    except InputError as error:
        assert str(error) and "\n" not in str(error)
        return
    categorical, _, _ = CONTRACT.ids(read)
    assert categorical.min() >= 0 and np.isfinite(CONTRACT.dense(read)).all()


ARRAYS = st.sampled_from([np.int64, np.float32, np.float64, np.bool_, np.uint8])


@settings(max_examples=100, deadline=None)
@given(st.dictionaries(st.text(max_size=5), st.tuples(ARRAYS, st.lists(st.integers(0, 1), max_size=6))))
def test_tensors_survive_the_wire(drawn):
    arrays = {name: np.array(values, dtype=kind) for name, (kind, values) in drawn.items()}
    arrays["text"] = np.array([b"", b"abc", b"\xff" * 9, None], dtype=object)[:3]
    message = infer_request("m", "v", arrays)
    found = arrays_of(message.inputs, message.raw_input_contents)
    assert found.keys() == arrays.keys()
    for name, array in arrays.items():
        assert found[name].dtype == array.dtype and found[name].tolist() == array.tolist()


@settings(max_examples=300, deadline=None)
@given(
    st.sampled_from(["BYTES", "INT64", "FP32", "BOOL", "UINT8", "FP16", ""]),
    st.lists(st.integers(-(2**63), 2**63 - 1), max_size=4),
    st.binary(max_size=40),
)
def test_any_bytes_are_an_array_or_refused(datatype, shape, content):
    try:
        found = arrays_of([SimpleNamespace(name="x", datatype=datatype, shape=shape)], [content])["x"]
    except InputError as error:
        assert "tensor 'x'" in str(error)
        return
    assert list(found.shape) == shape
