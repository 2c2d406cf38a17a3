"""The example schema: one row per kept impression, derived from the feature list."""

from __future__ import annotations

import pyarrow as pa

from components.common.events import TIMESTAMP
from components.common.features import FeatureConfig, sequence_column

TRAINING = "training"
EVALUATION = "evaluation"
LABELS = ("clicked", "good_clicked", "add_to_carts", "checkouts")
NEGATIVE_KEPT = "negative_kept"
USER_HASH = "user_hash"


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
    fields += [("clicked", pa.int8()), ("good_clicked", pa.int8()), ("add_to_carts", pa.int16())]
    fields += [("checkouts", pa.int16()), ("conversion_value", pa.float64())]
    fields += [("label_mature", pa.bool_()), (NEGATIVE_KEPT, pa.bool_())]
    return pa.schema([pa.field(name, kind, nullable=False) for name, kind in fields])
