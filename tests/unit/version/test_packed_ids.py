"""Exact ids as a version's file has them."""

import numpy as np
import pytest

from components.common.errors import InputError
from components.features.exact_ids import ExactIds, Vocabulary
from components.features.feature_list import FeatureConfig
from components.version.packed_ids import indexes_in, pack_ids


def features_of(*names):
    categorical = [{"name": name, "exact": {"capacity": 50, "admit_after": 1}} for name in names]
    return FeatureConfig.parse({"categorical": categorical, "sequence": {"entities": [names[0]]}}, "features")


@pytest.fixture
def vocabularies():
    """Of items that came and went, and of no campaign."""
    items = Vocabulary(ExactIds(capacity=50, admit_after=1, evict_after_days=1))
    for day, first in enumerate((1, 30, 60)):
        items.update(np.arange(first, first + 40), np.ones(40, dtype=np.int64), day)
    return {"item_id": items, "campaign_id": Vocabulary(ExactIds(capacity=50, admit_after=1))}


def test_file_has_the_rows_of_training(vocabularies):
    content, specs = pack_ids({name: own.index for name, own in vocabularies.items()})
    found = indexes_in(np.frombuffer(content, dtype=np.uint8), specs, features_of("item_id", "campaign_id"))
    ids = np.arange(200)
    for name, own in vocabularies.items():
        assert np.array_equal(found[name].rows(ids), own.index.rows(ids))
    assert (found["item_id"].find(ids) >= 0).sum() > 30 and (found["campaign_id"].find(ids) < 0).all()


def test_wrong_files_are_refused(vocabularies):
    content, specs = pack_ids({"item_id": vocabularies["item_id"].index})
    array = np.frombuffer(content, dtype=np.uint8)
    with pytest.raises(InputError, match=r"ids: \d+ bytes, the manifest's ids take"):
        indexes_in(array[:-1], specs, features_of("item_id"))
    bare = [spec.model_copy(update={"num_slots": 0}) for spec in specs]
    with pytest.raises(InputError, match="ids: of item_id with or without slots"):
        indexes_in(array[: bare[0].end_byte], bare, features_of("item_id"))
    with pytest.raises(InputError, match="not of .*campaign_id.*restore the version"):
        indexes_in(array, specs, features_of("item_id", "campaign_id"))
