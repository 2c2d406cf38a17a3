"""Examples: one row per kept impression, with a schema derived from the feature list."""

from __future__ import annotations

from datetime import date
from typing import ClassVar

import pyarrow as pa

from components.common import parquet_files
from components.common.errors import InputError
from components.common.layout import Store
from components.common.manifests import Manifest, read_manifest, verified_content, verified_files
from components.features.events import TIMESTAMP
from components.features.feature_list import FeatureConfig, sequence_column

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


class ExamplesManifest(Manifest):
    """One day of labelled examples of a split.

    Attributes:
        rows: Examples.
        positives: Examples with a positive label, by label.
        negative_keep_rate: Share of negatives that sampling kept in the day's training examples.
        labelling_digest: By which rules labels were attributed and negatives sampled.
    """

    kind: ClassVar[str] = "examples"

    rows: int
    positives: dict[str, int]
    negative_keep_rate: float
    labelling_digest: str = ""


class ExampleStatisticsManifest(Manifest):
    """Statistics and anomalies of one day of examples.

    Attributes:
        split: The split that was described.
        examples_digest: Content of the examples that were described.
        categorical: Columns whose values were counted one by one.
        warnings: Anomalies that do not stop a run.
    """

    kind: ClassVar[str] = "example_statistics"

    split: str
    examples_digest: str
    categorical: tuple[str, ...]
    warnings: tuple[str, ...]


def example_schema(features: FeatureConfig, identifier: pa.DataType) -> pa.Schema:
    """The Arrow schema of examples.

    Args:
        features: The feature list.
        identifier: Type of `impression_id`, int64 or string.
    """
    fields = [("impression_id", identifier), ("timestamp", TIMESTAMP), (USER_HASH, pa.int64())]
    fields += [(name, pa.int64()) for name in features.categorical_names]
    fields += [(name, pa.float32()) for name in features.dense_names]
    weights = {feature.weights for feature in features.lists}
    fields += [(name, pa.list_(pa.float32() if name in weights else pa.int64())) for name in features.list_columns]
    fields += [(sequence_column(name), pa.list_(pa.int64())) for name in features.sequence_names]
    return pa.schema([pa.field(name, kind, nullable=False) for name, kind in [*fields, *_LABEL_FIELDS]])


def labelled_schema(impressions: pa.Schema) -> pa.Schema:
    """The Arrow schema of labelled impressions without features: the log's own columns, then the labels."""
    return pa.schema([*impressions, *(pa.field(name, kind, nullable=False) for name, kind in _LABEL_FIELDS)])


def read_examples_manifest(store: Store, split: str, day: date) -> ExamplesManifest:
    """The manifest of one day of examples.

    Raises:
        InputError: If the day has no such examples.
    """
    return read_manifest(store.examples(split, day), ExamplesManifest)


def read_examples(
    store: Store, split: str, day: date, columns: list[str] | None = None
) -> tuple[pa.Table, ExamplesManifest]:
    """One day of examples, all its files in order, and its manifest.

    Raises:
        InputError: If the day has no such examples, or a file is not what was written.
    """
    manifest = read_examples_manifest(store, split, day)
    contents = (verified_content(store.examples(split, day), entry) for entry in manifest.files)
    return pa.concat_tables([parquet_files.read_parquet(uri, columns, content) for uri, content in contents]), manifest


def example_files(store: Store, split: str, day: date) -> list[str]:
    """The Parquet files of a day's examples, compared with their digests.

    Raises:
        InputError: If the day has no such examples, or a file is not what was written.
    """
    return verified_files(store.examples(split, day), read_examples_manifest(store, split, day))


def newest_days(store: Store, through: date, number: int) -> list[date]:
    """The newest days that have training examples, until one: what a batch that ends there is made of."""
    return [day for day in store.example_days(TRAINING) if day <= through][-number:]


def check_made_alike(manifests: list[ExamplesManifest]) -> ExamplesManifest:
    """The first of some days' manifests, after a check that all days were labelled and sampled by the same rules.

    Raises:
        InputError: If they were not.
    """
    rates = sorted({manifest.negative_keep_rate for manifest in manifests})
    if len(rates) != 1:
        raise InputError(f"examples have negative_keep_rate {rates}; join all days at one rate")
    if len({manifest.labelling_digest for manifest in manifests}) != 1:
        raise InputError(
            "examples were labelled by different rules (dataset.attribution, click_days, good_click, join.salt); join "
            "all days by the same ones"
        )
    return manifests[0]
