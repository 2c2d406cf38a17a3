"""Examples: one row per kept impression, with a schema derived from the feature list."""

from __future__ import annotations

from datetime import date

import pyarrow as pa

from components.common import storage
from components.common.events import TIMESTAMP
from components.common.features import FeatureConfig, sequence_column
from components.common.layout import EXAMPLES_KIND, Store
from components.common.manifests import Manifest, read_manifest

TRAINING = "training"
EVALUATION = "evaluation"
# Training examples of a day whose labels could still change.
EARLY = "early"
LABELS = ("clicked", "good_clicked", "add_to_carts", "checkouts")
NEGATIVE_KEPT = "negative_kept"
USER_HASH = "user_hash"
_LABEL_FIELDS = (
    ("clicked", pa.int8()),
    ("good_clicked", pa.int8()),
    ("add_to_carts", pa.int16()),
    ("checkouts", pa.int16()),
    ("conversion_value", pa.float64()),
    ("label_mature", pa.bool_()),
    (NEGATIVE_KEPT, pa.bool_()),
)


def example_schema(features: FeatureConfig, identifier: pa.DataType) -> pa.Schema:
    """The Arrow schema of examples.

    Args:
        features: The feature list.
        identifier: Type of `impression_id`, int64 or string.
    """
    fields = [("impression_id", identifier), ("timestamp", TIMESTAMP), (USER_HASH, pa.int64())]
    fields += [(name, pa.int64()) for name in features.categorical_names]
    fields += [(name, pa.float32()) for name in features.dense_names]
    fields += [(sequence_column(name), pa.list_(pa.int64())) for name in features.sequence_names]
    return pa.schema([pa.field(name, kind, nullable=False) for name, kind in [*fields, *_LABEL_FIELDS]])


def labelled_schema(impressions: pa.Schema) -> pa.Schema:
    """The Arrow schema of labelled impressions without features: the log's own columns, then the labels."""
    return pa.schema([*impressions, *(pa.field(name, kind, nullable=False) for name, kind in _LABEL_FIELDS)])


def read_examples_manifest(store: Store, split: str, day: date) -> Manifest:
    """The manifest of one day of examples.

    Raises:
        InputError: If the day has no such examples.
    """
    return read_manifest(store.examples(split, day), EXAMPLES_KIND)


def read_examples(store: Store, split: str, day: date, columns: list[str] | None = None) -> tuple[pa.Table, Manifest]:
    """One day of examples, all its files in order, and its manifest.

    Raises:
        InputError: If the day has no such examples.
    """
    uri = store.examples(split, day)
    manifest = read_examples_manifest(store, split, day)
    parts = [storage.read_parquet(storage.join_uri(uri, entry.name), columns) for entry in manifest.files]
    return pa.concat_tables(parts), manifest
