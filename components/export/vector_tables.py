"""Pretrained vectors as tables of a version."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date, timedelta

import numpy as np

from components.common.layout import Store
from components.features.exact_ids import IdIndex
from components.features.feature_list import FeatureConfig
from components.features.vectors import KnownVectors
from components.version.packed_ids import one_shared_row


@dataclass(frozen=True)
class VectorTables:
    """What a version serves of pretrained vectors: the newest deliveries.

    Attributes:
        known: Where the checkpoint's own predictions take them from; None without any.
        rows: By feature, float32, shape ((vectors + 1) * rows of each, dim); the last are zeros, for ids without any.
        indexes: Which vector each id has, by feature.
        days: Of the deliveries, by feature.
    """

    known: KnownVectors | None
    rows: dict[str, np.ndarray]
    indexes: dict[str, IdIndex]
    days: dict[str, date]

    @classmethod
    def of(cls, store: Store, features: FeatureConfig, event_date: date, dim: int) -> VectorTables:
        """Those that impressions of the day after `event_date` know, in rows of `dim` numbers.

        Raises:
            InputError: If a delivery is absent or damaged.
        """
        if not features.vectors:
            return cls(None, {}, {}, {})
        next_day = event_date + timedelta(days=1)
        known = KnownVectors.before(store, features, next_day, next_day)
        rows, indexes, days = {}, {}, {}
        for feature in features.vectors:
            delivery = known.deliveries[feature.name][-1]
            num_vectors, width = len(delivery.ids), feature.rows_per_vector(dim) * dim
            padded = np.zeros((num_vectors + 1, width), dtype=np.float32)
            padded[:num_vectors, : feature.dim] = delivery.numbers
            rows[feature.name] = padded.reshape(-1, dim)
            vocabulary = one_shared_row(num_vectors).learned({"keys": delivery.ids})
            indexes[feature.name], days[feature.name] = vocabulary.index, delivery.day
        return cls(known.newest(), rows, indexes, days)

    @property
    def all_rows(self) -> dict[str, np.ndarray]:
        """Their rows, by table: all are of 8 bits."""
        return {name: np.arange(len(rows)) for name, rows in self.rows.items()}
