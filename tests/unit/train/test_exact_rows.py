"""Exact ids from examples to a checkpoint: who has a row, what becomes of rows that are given to another id."""

from collections import Counter

import numpy as np
import pytest
import torch

from components.features.examples import TRAINING, example_files, read_examples
from components.features.feature_list import FeatureConfig
from components.ranker.checkpoint import TrainedRanker
from components.ranker.vocabularies import count_ids
from components.train.config import TrainConfig
from components.train.one_model import train_batch, train_day
from components.train.training_state import load_state
from tests.conftest import with_every_kind
from tests.unit.train.test_run import copy_examples

TABLE = "campaign_id"
SPARSE = {"tables": "lazy_adam", "frequency_adaptive": {"scaling": "log"}}


@pytest.fixture()
def own(joined, tmp_path):
    return with_every_kind(copy_examples(joined, str(tmp_path / "own")))


def occurrences(own, day):
    """Campaigns of a day, of impressions and of sequences, counted one by one."""
    table, _ = read_examples(own.store, TRAINING, day)
    ids = [*table[TABLE].to_pylist(), *(number for ids in table[f"sequence_{TABLE}"].to_pylist() for number in ids)]
    return dict(zip(*np.unique(ids, return_counts=True), strict=True))


def test_ids_are_counted_in_columns_sequences_and_lists(own):
    features = own.config.features
    counted = count_ids(features, example_files(own.store, TRAINING, own.scored_day), features.exact_ids)
    assert {*counted} == {TABLE, "item_tags"}
    assert dict(zip(*counted[TABLE], strict=True)) == occurrences(own, own.scored_day)
    table, _ = read_examples(own.store, TRAINING, own.scored_day)
    tags = Counter(tag for tags in table["item_tags"].to_pylist() for tag in tags)
    assert dict(zip(*counted["item_tags"], strict=True)) == tags


@pytest.mark.parametrize("optimizer", [{}, SPARSE])
def test_rows_of_the_batch_are_those_of_the_most_frequent(own, optimizer):
    config = own.config
    values = config.arms["baseline"].model_dump(mode="json")
    recipe = TrainConfig.parse(values | {"optimizer": values["optimizer"] | optimizer}, "arm")
    train_batch(own.store.root, "baseline", config.features, recipe, own.batch_days)
    totals = {}
    for day in own.batch_days:
        for number, count in occurrences(own, day).items():
            totals[number] = totals.get(number, 0) + count
    exact = config.features.exact_ids[TABLE]
    ranker = TrainedRanker.load(own.store, "baseline", own.batch_days[-1])
    ids = np.array([*totals])
    has_row = ranker.indexes[TABLE].find(ids) >= 0
    assert 0 < has_row.sum() <= exact.capacity < len(ids), "the fixture has more campaigns than rows"
    counts = np.array([*totals.values()])
    assert counts[has_row].min() >= exact.admit_after
    assert counts[has_row].sum() > 0.7 * counts.sum()

    before, _ = load_state(own.store, "baseline", own.batch_days[-1])
    after, _ = load_state(own.store, "baseline", own.batch_days[-1])
    if before.optimizer.tables is not None:
        frequencies, start = before.optimizer.tables.frequencies, before.model.embeddings.first_rows[TABLE]
        compared = frequencies.all.view(torch.int32)[start : start + exact.capacity]
        assert int(compared.max()) in frequencies.largest, (
            "what shares a row does not count against ids that have their own"
        )
        assert len(frequencies.largest) == len(config.features.tables) + len(config.features.exact_ids)
    new = {number: 10_000 for number in range(5, 12)}
    nothing = np.zeros(0, dtype=np.int64)
    counted = dict.fromkeys(config.features.learned, (nothing, nothing))
    after.meet(own.scored_day, counted | {TABLE: (np.array([*new]), np.array([*new.values()]))})
    rows = torch.from_numpy(after.vocabularies[TABLE].index.find(np.array([*new])))
    assert (rows >= 0).all()
    tables = [state.model.embeddings.tables() for state in (before, after)]
    changed = (tables[0][TABLE] != tables[1][TABLE]).any(dim=1).nonzero().view(-1)
    reused = [row for row in rows.tolist() if row < len(before.vocabularies[TABLE].keys)]
    assert len(reused) > 0 and changed.tolist() == sorted(reused)
    for name in tables[0]:
        assert name == TABLE or torch.equal(tables[0][name], tables[1][name])
    first = after.model.embeddings.first_rows[TABLE]
    for name, value in after.optimizer.state_tensors().items():
        if after.optimizer.is_by_row(name):
            values = value.view(torch.int32) if value.dtype == torch.uint32 else value
            old = before.optimizer.state_tensors()[name]
            assert (values[[first + row for row in reused]] == 0).all()
            assert old.view(torch.int32).ne(values).any() if old.dtype == torch.uint32 else old.ne(values).any()


def test_same_days_give_the_same_checkpoint(joined, tmp_path):
    digests = set()
    for name in "ab":
        own = with_every_kind(copy_examples(joined, str(tmp_path / name)))
        config, root = own.config, own.store.root
        recipe = config.arms["baseline"]
        batch = train_batch(root, "baseline", config.features, recipe, own.batch_days)
        day = train_day(root, "baseline", config.features, recipe, own.scored_day, own.batch_days[-1])
        digests.add((batch, day))
    assert len(digests) == 1


def test_feature_lists_without_exact_ids_keep_their_digests():
    values = {"categorical": [{"name": "item_id", "num_rows": 8}]}
    features = FeatureConfig.parse(values, "features")
    assert "exact" not in features.model_dump(mode="json")["categorical"][0]
    exact = {"categorical": [{"name": "item_id", "exact": {"capacity": 8}}], "sequence": {"entities": ["item_id"]}}
    assert FeatureConfig.model_validate(FeatureConfig.parse(exact, "features").model_dump(mode="json")).exact_ids
