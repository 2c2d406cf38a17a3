"""Deliveries of pretrained vectors: what is set aside, which impressions know which, what is refused."""

from __future__ import annotations

from datetime import date

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from components.common import storage
from components.common.days import number_of
from components.common.errors import InputError
from components.common.layout import Store
from components.common.manifests import read_manifest
from components.common.parquet_files import read_parquet
from components.features.feature_list import FeatureConfig
from components.features.hashing import feature_ids, hash_identifiers
from components.features.log_manifests import LOG_FILE, QuarantineManifest
from components.features.vectors import KnownVectors, VectorsManifest
from components.sources.config import VectorSource
from components.sources.vector_days import deliver_vectors
from pipelines.config import load_config
from tests.conftest import small_values, write_config

FEATURES = FeatureConfig.parse(
    {
        "categorical": [{"name": "user_id", "num_rows": 4}, {"name": "item_id", "num_rows": 4}],
        "vectors": [{"name": "text", "entity": "item_id", "dim": 2}],
    },
    "features",
)
(FEATURE,) = FEATURES.vectors
FIRST, LAST = date(2026, 3, 4), date(2026, 3, 9)


def deliver(folder, day: str, ids, vectors, name="part.parquet") -> None:
    path = folder / "text" / f"event_date={day}"
    path.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table({"item_id": ids, "vector": vectors}), path / name)


def bring_in(folder, **source) -> Store:
    store = Store(str(folder / "store"))
    deliver_vectors(store, FEATURE, VectorSource(uri=str(folder / "text"), **source), FIRST, LAST)
    return store


def hashes(*ids) -> np.ndarray:
    return feature_ids(hash_identifiers(pa.array(ids)))


def test_what_cannot_be_used_goes_to_quarantine_with_its_reason(tmp_path):
    vectors = [
        [1.0, 2.0],
        None,
        [1.0],
        [float("nan"), 1.0],
        [1e9, 1.0],
        [0.0, 0.0],
        [3.0, None],
        [5.0, 6.0],
        [7.0, 8.0],
    ]
    deliver(tmp_path, "2026-03-01", [1, 2, 3, 4, 5, 6, 7, None, 1], vectors)
    store, day = bring_in(tmp_path), date(2026, 3, 1)
    reasons = {"no_vector": 1, "of_another_length": 1, "not_finite": 2, "too_large": 1, "only_zeros": 1}
    reasons |= {"no_id": 1, "id_given_before": 1}
    manifest, aside = read_manifest(store.vectors("text", day), VectorsManifest), store.quarantine("vectors_text", day)
    assert manifest.rows == 1 and manifest.quarantined == reasons and manifest.id_type == "int64"
    assert read_manifest(aside, QuarantineManifest).reasons == reasons
    rejected = read_parquet(storage.join_uri(aside, LOG_FILE)).to_pylist()
    assert {(row["row"], row["reason"]) for row in rejected} >= {(1, "no_vector"), (8, "id_given_before")}
    known = KnownVectors.before(store, FEATURES, LAST, LAST)
    found = known.look_up(hashes(1, 2)[:, None], np.full(2, number_of(LAST)))
    assert found.tolist() == [[1.0, 2.0], [0.0, 0.0]]


def test_deliveries_that_stay_away_are_told(tmp_path, capsys):
    deliver(tmp_path, "2026-03-01", [1], [[1.0, 2.0]])
    bring_in(tmp_path, max_age_days=8)
    assert "ALARM" not in capsys.readouterr().out
    bring_in(tmp_path, max_age_days=7)
    assert "ALARM: text 2026-03-09: the newest delivery is 8 days old" in capsys.readouterr().out


def test_an_impression_knows_the_newest_delivery_of_a_day_before_its_own(tmp_path):
    for number, day in enumerate(("2026-02-01", "2026-03-01", "2026-03-05", "2026-03-09")):
        deliver(tmp_path, day, ["a", "b"], [[number + 1.0, 0.0], [0.0, number + 1.0]])
    store = bring_in(tmp_path)
    # The oldest is nobody's; the newest is what a version serves after the last day.
    assert [str(day) for day in store.vector_days("text")] == ["2026-03-01", "2026-03-05", "2026-03-09"]
    days = [date(2026, 3, day) for day in (4, 5, 6, 9)]
    known = KnownVectors.before(store, FEATURES, FIRST, LAST)
    found = known.look_up(np.repeat(hashes("a"), 4)[:, None], np.array([number_of(day) for day in days]))
    assert found[:, 0].tolist() == [2.0, 2.0, 3.0, 3.0]
    assert known.newest().look_up(hashes("a")[:, None], np.array([0])).tolist() == [[3.0, 0.0]]
    digest = known.digest
    deliver(tmp_path, "2026-03-05", ["a"], [[9.0, 9.0]])
    again = KnownVectors.before(bring_in(tmp_path), FEATURES, FIRST, LAST)
    assert again.digest != digest and again.newest().look_up(hashes("a")[:, None], np.array([0]))[0, 0] == 9.0


@pytest.mark.parametrize("kind", [pa.list_(pa.float64()), pa.list_(pa.float16(), 2), pa.large_list(pa.int32())])
def test_lists_of_any_numbers_in_several_files_are_read(tmp_path, kind):
    for number in range(2):
        deliver(tmp_path, "2026-03-01", [f"{number}"], pa.array([[number + 1, 2]], kind), f"{number}.parquet")
    store = bring_in(tmp_path, type="integer")
    known = KnownVectors.before(store, FEATURES, FIRST, FIRST)
    found = known.look_up(hashes(0, 1)[:, None], np.full(2, number_of(FIRST)))
    assert found.tolist() == [[1.0, 2.0], [2.0, 2.0]]


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"entity": "store_id"}, r"text\.entity: 'store_id' has no table; add it to categorical"),
        ({"entity": "hour_of_day"}, r"text\.entity: 'hour_of_day' has no table"),
        ({"name": "item_id"}, "'item_id' is the name of two features"),
        ({"name": "../text"}, r"vectors\.0\.name = '\.\./text'"),
    ],
)
def test_features_that_cannot_be_are_refused(changes, said):
    clock = {"name": "hour_of_day", "num_rows": 24}
    values = FEATURES.model_dump(mode="json")
    values |= {"categorical": [*values["categorical"], clock], "vectors": [values["vectors"][0] | changes]}
    with pytest.raises(InputError, match=said):
        FeatureConfig.parse(values, "features")


def test_deliveries_and_features_must_have_the_same_names(tmp_path):
    values = small_values() | {"vectors": {"text": {"uri": str(tmp_path)}}}
    with pytest.raises(InputError, match=r"vectors\.text: .* must have the same names"):
        load_config(str(write_config(tmp_path / "own.yaml", values)))


def test_what_is_missing_or_wrong_is_named(tmp_path):
    with pytest.raises(InputError, match=r"no folder event_date=YYYY-MM-DD of a day before 2026-03-09; deliver"):
        bring_in(tmp_path)
    deliver(tmp_path, "2026-03-09", [1], [[1.0, 2.0]])
    with pytest.raises(InputError, match="of a day before 2026-03-09"):
        bring_in(tmp_path)
    deliver(tmp_path, "2026-03-01", [1], [[1.0]])
    with pytest.raises(InputError, match=r"of 1 vectors none can be used: \{'of_another_length': 1\}"):
        bring_in(tmp_path)
    deliver(tmp_path, "2026-03-01", [1], ["text"])
    with pytest.raises(InputError, match=r"column 'vector' is string; it must be lists of 2 numbers"):
        bring_in(tmp_path)
    with pytest.raises(InputError, match=r"has no column 'embedding', but \['item_id', 'vector'\]; say"):
        bring_in(tmp_path, column="embedding")
    deliver(tmp_path, "2026-03-01", ["no number"], [[1.0, 2.0]])
    with pytest.raises(InputError, match=r"column 'item_id': .*; correct vectors\.text\.type"):
        bring_in(tmp_path, type="integer")
    with pytest.raises(InputError, match=r"features\.vectors: there is no delivery of text before 2026-03-04"):
        KnownVectors.before(Store(str(tmp_path / "empty")), FEATURES, FIRST, FIRST)
