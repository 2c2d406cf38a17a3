"""Pretrained vectors of users and items: deliveries in the store, and which of them an impression may know."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date
from typing import ClassVar, Literal

import numpy as np
import pyarrow as pa

from components.common.days import number_of
from components.common.digests import digest_json
from components.common.errors import InputError
from components.common.layout import Store
from components.common.manifests import Manifest, mapped_bytes, read_manifest
from components.features.feature_list import FeatureConfig

IDS_FILE, NUMBERS_FILE = "ids.bin", "numbers.bin"
ID, NUMBER = np.dtype("<i8"), np.dtype("<f4")


class VectorsManifest(Manifest):
    """The vectors that were delivered on one day.

    `ids.bin` has the hashes of the ids, ascending, little-endian int64; `numbers.bin` their vectors, float32.

    Attributes:
        rows: Vectors.
        dim: Numbers of each.
        quarantined: Rows that were set aside, by reason.
        id_type: What the ids are, which decides their hash: int64 or string.
    """

    kind: ClassVar[str] = "vectors"

    rows: int
    dim: int
    quarantined: dict[str, int]
    id_type: Literal["int64", "string"]


@dataclass(frozen=True)
class Delivery:
    """The vectors of one delivery, mapped into memory where the store is local.

    Attributes:
        day: Impressions of later days know it.
        digest: Of its content.
        ids: Hashes, ascending, int64, shape (k,).
        numbers: float32, shape (k, dim).
    """

    day: date
    digest: str
    ids: np.ndarray
    numbers: np.ndarray

    @classmethod
    def open(cls, store: Store, name: str, day: date, dim: int) -> Delivery:
        """Read what was delivered on a day.

        Raises:
            InputError: If it is absent, damaged, or of another length.
        """
        uri = store.vectors(name, day)
        manifest = read_manifest(uri, VectorsManifest)
        if manifest.dim != dim:
            raise InputError(f"{uri}: has vectors of {manifest.dim} numbers; features.vectors has {name}.dim = {dim}")
        ids, numbers = (np.asarray(mapped_bytes(uri, manifest, file)) for file in (IDS_FILE, NUMBERS_FILE))
        return cls(day, manifest.content_digest, ids.view(ID), numbers.view(NUMBER).reshape(-1, dim))

    def look_up(self, ids: np.ndarray) -> np.ndarray:
        """The vectors of hashes, int64, shape (n,); zeros where there is none; float32, shape (n, dim)."""
        found = np.zeros((len(ids), self.numbers.shape[1]), dtype=np.float32)
        if len(self.ids):
            places = np.searchsorted(self.ids, ids).clip(max=len(self.ids) - 1)
            is_known = self.ids[places] == ids
            found[is_known] = self.numbers[places[is_known]]
        return found


class KnownVectors:
    """What is known of users and items when an impression is shown: the newest delivery of a day before its own.

    Attributes:
        deliveries: By feature, in order of their days.
    """

    def __init__(self, features: FeatureConfig, deliveries: Mapping[str, Sequence[Delivery]]) -> None:
        """Look vectors of a feature list up in some deliveries."""
        self._features, self.deliveries = features, deliveries

    @classmethod
    def before(cls, store: Store, features: FeatureConfig, first: date, last: date) -> KnownVectors:
        """Those that impressions of the days `first`..`last` know.

        Raises:
            InputError: If a feature has no delivery before the last of the days, or one is damaged.
        """
        deliveries = {}
        for feature in features.vectors:
            earlier = [day for day in store.vector_days(feature.name) if day < last]
            if not earlier:
                raise InputError(
                    f"features.vectors: there is no delivery of {feature.name} before {last}; deliver one "
                    f"(vectors.{feature.name}.uri), or take the feature out"
                )
            known_first = max((number for number, day in enumerate(earlier) if day < first), default=0)
            deliveries[feature.name] = [
                Delivery.open(store, feature.name, day, feature.dim) for day in earlier[known_first:]
            ]
        return cls(features, deliveries)

    @property
    def digest(self) -> str:
        """Of all deliveries and their days."""
        content = {name: [[str(one.day), one.digest] for one in own] for name, own in self.deliveries.items()}
        return digest_json(content)

    def newest(self) -> KnownVectors:
        """The newest deliveries alone, whatever an impression's day: as a version serves them."""
        newest = {name: [replace(of_name[-1], day=date.min)] for name, of_name in self.deliveries.items()}
        return KnownVectors(self._features, newest)

    def look_up(self, owners: np.ndarray, days: np.ndarray) -> np.ndarray:
        """Vectors of n impressions, behind each other; zeros where there is none.

        Args:
            owners: Hashes of the users or items, int64, shape (n, F).
            days: Of the impressions, in days since 1970, int64, shape (n,).

        Returns:
            float32, shape (n, the dims' sum).
        """
        parts = []
        for column, feature in enumerate(self._features.vectors):
            delivered = self.deliveries[feature.name]
            found = np.zeros((len(owners), feature.dim), dtype=np.float32)
            newest = np.searchsorted([number_of(one.day) for one in delivered], days) - 1
            for number in np.unique(newest[newest >= 0]):
                chosen = np.flatnonzero(newest == number)
                found[chosen] = delivered[number].look_up(owners[chosen, column])
            parts.append(found)
        return np.concatenate(parts, axis=1)


def type_of(ids: pa.DataType) -> Literal["int64", "string"]:
    """Which of two kinds of ids these are, which have other hashes."""
    return "int64" if pa.types.is_integer(ids) else "string"
