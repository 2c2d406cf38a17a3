"""Rows that are looked up often keep 8 bits: which these are, what is served of them, and what is reported."""

from __future__ import annotations

import re
from collections import Counter
from datetime import timedelta

import numpy as np
import pytest

from components.common import storage
from components.common.errors import InputError
from components.common.layout import Store
from components.common.lineage import Lineage
from components.export.look_up_counts import count_look_ups, most_frequent
from components.features.examples import EVALUATION, TRAINING, read_examples
from components.features.feature_list import sequence_column
from components.publish.registry import publish_releases
from components.ranker.dataset import tensors_of
from components.ranker.prediction import predict
from components.report.facts import collect
from components.report.page import render
from components.serve.ranker_version import RankerVersion
from components.train.training_state import load_state
from components.version.parity import TableParity
from components.version.predictor import Predictor
from components.version.version import Version
from tests.unit.export.served import export_of, take_tables
from tests.unit.export.test_single_file import with_codes

SHARE = 0.2


def lineage_of(first, last):
    return Lineage(arm="baseline", first_day=first, trained_through=last, parent="", step=1, negative_keep_rate=0.5)


@pytest.mark.parametrize("code", [None, {"split": "succession"}, {"split": "skip", "combine": "concatenate"}])
def test_frequencies_are_those_of_a_count_by_hand(joined, code):
    features = with_codes(joined.config.features, **code) if code else joined.config.features
    days = joined.batch_days[1:3]
    expected = {table: Counter() for table in features.tables}

    def count(table, value):
        binary = features.binary_codes.get(table)
        expected[table].update(
            binary.rows(value % features.num_ids[table]) if binary else [value % features.num_ids[table]]
        )

    for day in days:
        for row in read_examples(joined.store, TRAINING, day)[0].to_pylist():
            for name in features.categorical_names:
                count(name, row[name])
            for name in features.sequence_names:
                for value in row[sequence_column(name)]:
                    count(features.sequence_table(name), value)
    found = count_look_ups(joined.store, lineage_of(days[0], days[-1]), features)
    assert {table: len(counts) for table, counts in found.items()} == features.tables
    for table, counts in found.items():
        rows = np.flatnonzero(counts)
        assert dict(zip(rows.tolist(), counts[rows].tolist(), strict=True)) == dict(expected[table])
    # An impression has one item, and sequences have more of them.
    assert found["item_id"].sum() > found["user_id"].sum() > 0


def test_days_without_examples_are_refused(joined):
    day = joined.scored_day + timedelta(days=100)
    with pytest.raises(InputError, match=r"export\.int8_share: no training examples of"):
        count_look_ups(joined.store, lineage_of(day, day), joined.config.features)


def test_most_frequent_rows_are_sorted_and_were_looked_up():
    frequencies = np.array([3, 0, 9, 9, 0, 1, 4, 0, 0, 0])
    assert most_frequent(frequencies, 0.3).tolist() == [2, 3, 6]
    assert most_frequent(frequencies, 0.1).tolist() == [2]
    assert most_frequent(frequencies, 0.09).tolist() == []
    assert most_frequent(frequencies, 1.0).tolist() == [0, 2, 3, 5, 6]


def predicted_by_torch(deployment, version):
    state, _ = load_state(deployment.store, "baseline", deployment.batch_days[-1])
    vectors = take_tables(state.model, version)
    table = read_examples(deployment.store, EVALUATION, deployment.scored_day)[0]
    return predict(
        state.model,
        state.lineage.negative_keep_rate,
        tensors_of(table, state.features, True, state.indexes, vectors),
        512,
    )


def test_version_serves_frequent_rows_at_8_bits_and_reports_plain_int4_beside_it(unexported, capsys):
    deployment = unexported.deployment
    plain = unexported.export()
    assert plain.parity.plain_int4 is None
    learned = deployment.config.features.tables
    assert {spec.num_hot for spec in plain.tables if spec.name in learned} == {0}
    vectors = [spec for spec in plain.tables if spec.name not in learned]
    assert len(vectors) == 2 and all(spec.num_hot == spec.num_rows for spec in vectors)
    storage.remove(unexported.uri)
    manifest = unexported.export(int8_share=SHARE, single_file=True)
    parity = manifest.parity
    # What is reported of plain INT4 is what an export of it reports.
    known = TableParity(**plain.parity.model_dump(include=set(TableParity.model_fields)))
    assert parity.plain_int4 == known
    assert parity.int4_max_difference < known.int4_max_difference
    assert known.table_bytes.int4 < parity.table_bytes.int4 < 1.6 * known.table_bytes.int4
    assert parity.table_bytes.float16 == known.table_bytes.float16
    assert parity.single_file_max_difference <= 1e-6

    content = storage.map_bytes(storage.join_uri(unexported.uri, "tables.int4"))
    specs = [spec for spec in manifest.tables if spec.name in learned]
    state, _ = load_state(deployment.store, "baseline", deployment.batch_days[-1])
    frequencies = count_look_ups(deployment.store, state.lineage, state.features, state.indexes)
    for spec in specs:
        assert spec.hot_ids(content).tolist() == most_frequent(frequencies[spec.name], SHARE).tolist()
    assert sum(spec.num_hot for spec in specs) > 100

    rows = read_examples(deployment.store, EVALUATION, deployment.scored_day)[0]
    version = Version.open(unexported.uri)
    served = Predictor.from_version(version).predict(rows)
    assert np.abs(served - predicted_by_torch(deployment, version)).max() < 1e-6
    assert RankerVersion.load(version, 1).digest == manifest.version_digest
    said = re.search(
        r"AUC by INT4 tables with frequent rows in INT8 .*; AUC by plain INT4 tables .*", capsys.readouterr().out
    )
    assert said and said[0].count("of float16") == 2


def test_report_page_shows_plain_int4_beside_what_is_published(unexported):
    deployment, blessing = unexported.deployment, unexported.blessing
    pages = []
    for config in ({}, {"int8_share": SHARE}):
        storage.remove(unexported.uri)
        manifest = unexported.export(**config)
        publish_releases(deployment.store, blessing, export_of(blessing, [manifest.version_digest]))
        facts = collect(deployment.store, deployment.config.dataset, "batch", deployment.scored_day)
        pages.append(render(facts, ""))
    assert "plain INT4" not in pages[0] and "frequent rows INT8" not in pages[0]
    assert "<th>INT4 tables, frequent rows INT8</th><th>plain INT4, not published</th>" in pages[1]
    for column in (manifest.parity, manifest.parity.plain_int4):
        assert f"{column.table_bytes.int4:,} bytes" in pages[1]


def test_limits_are_of_what_is_published(unexported, monkeypatch):
    """Plain INT4 may be beyond them."""
    asked = []

    def beyond_limits(objectives, config):
        asked.append(objectives)
        return []

    monkeypatch.setattr("components.export.run.beyond_limits", beyond_limits)
    parity = unexported.export(int8_share=SHARE).parity
    assert asked == [parity.objectives] and asked != [parity.plain_int4.objectives]


def test_frequencies_are_needed_only_for_the_option(unexported):
    storage.remove(f"{unexported.deployment.store.root}/examples/training")
    with pytest.raises(InputError, match=r"export\.int8_share"):
        unexported.export(int8_share=SHARE)
    assert not Store(unexported.deployment.store.root).example_days(TRAINING)
    unexported.export()
