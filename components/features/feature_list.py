"""The feature list: declared once here; example columns, KeyedJaggedTensor keys and ONNX inputs are derived from it."""

from __future__ import annotations

from functools import cached_property
from itertools import accumulate, pairwise
from typing import ClassVar

import numpy as np
from pydantic import Field, field_validator, model_validator

from components.common.config import GrownConfig
from components.features.binary_code import BinaryCode
from components.features.events import ACTION_TYPES, TimeZone
from components.features.exact_ids import ExactIds
from components.features.feature_kinds import (
    NUM_HASHES,
    CategoricalFeature,
    CountFeatures,
    EngagementFeatures,
    ListFeature,
    Names,
    NumberFeature,
    SequenceFeature,
    VectorFeature,
)
from components.features.learned_rows import RowRule

CLOCK_FEATURES = ("hour_of_day", "day_of_week")
ANY_ACTION = "any"
NUM_GAP_BUCKETS = 32
ENGAGEMENT_RATES = ("click", "add_to_cart", "checkout")
_SEQUENCE_FIXED = {"action_type": len(ACTION_TYPES), "gap": NUM_GAP_BUCKETS}


class FeatureConfig(GrownConfig):
    """All features of a model."""

    later: ClassVar[tuple[str, ...]] = ("lists", "since_last", "vectors")

    categorical: tuple[CategoricalFeature, ...] = Field(min_length=1)
    lists: tuple[ListFeature, ...] = Field((), description="lists of identifiers, such as an item's categories")
    vectors: tuple[VectorFeature, ...] = Field((), description="vectors of users or items that other models made")
    sequence: SequenceFeature = SequenceFeature()
    counts: CountFeatures = CountFeatures()
    engagement: EngagementFeatures = EngagementFeatures()
    since_last: Names = Field(
        (), description="days since the user's last action: any, or those of a type, click, add_to_cart, checkout"
    )
    numbers: tuple[str | NumberFeature, ...] = Field((), description="context numbers: names, or with how to take them")
    timezone: TimeZone = Field("UTC", description="by whose clocks days and hours are; set by dataset.timezone")

    @field_validator("numbers")
    @classmethod
    def _check_numbers(cls, numbers: tuple[str | NumberFeature, ...]) -> tuple[str | NumberFeature, ...]:
        names = [number if isinstance(number, str) else number.name for number in numbers]
        twice = [name for name in names if names.count(name) > 1]
        if twice:
            raise ValueError(f"{twice[0]!r} is given twice; take one out")
        return numbers

    @model_validator(mode="after")
    def _check_sequence(self) -> FeatureConfig:
        names = [feature.name for feature in self.categorical]
        twice = [name for name in names if names.count(name) > 1]
        if twice:
            raise ValueError(f"categorical: {twice[0]!r} is given twice; take one out")
        tables = set(names)
        for entity in self.sequence.entities:
            if entity not in tables:
                raise ValueError(f"sequence.entities: {entity!r} has no table; add it to categorical")
        for vector in self.vectors:
            if vector.entity not in self.plain_names or vector.entity in CLOCK_FEATURES:
                raise ValueError(
                    f"vectors: {vector.name}.entity: {vector.entity!r} has no table; add it to categorical"
                )
        known = set(ACTION_TYPES)
        for where, used in (("sequence", self.sequence.action_types), ("counts", self.counts.action_types)):
            if not set(used) <= known or not used:
                raise ValueError(f"{where}.action_types {list(used)}: must be some of {list(ACTION_TYPES)}")
        unknown = sorted({*self.since_last} - known - {ANY_ACTION})
        if unknown:
            raise ValueError(f"since_last: {unknown[0]!r} must be one of {[ANY_ACTION, *ACTION_TYPES]}")
        weights = {feature.weights for feature in self.lists if feature.weights is not None}
        columns = [*names, *(feature.name for feature in self.lists), *sorted(weights), *self.dense_names]
        columns += self.vector_names
        twice = [name for name in columns if columns.count(name) > 1]
        if twice:
            raise ValueError(f"{twice[0]!r} is the name of two features; rename or take out one")
        return self

    @property
    def history_days(self) -> int:
        """Log days before an impression's day that its features may reach back to."""
        return max(*self.counts.windows_days, self.engagement.window_days)

    @cached_property
    def categorical_names(self) -> tuple[str, ...]:
        """Example columns (int64 hashes) with one id a row, in the order of the model's inputs."""
        return tuple(feature.name for feature in self.categorical)

    @cached_property
    def list_columns(self) -> tuple[str, ...]:
        """Example columns with a list a row: of int64 hashes, and of float32 weights."""
        weights = (feature.weights for feature in self.lists if feature.weights is not None)
        return tuple(dict.fromkeys([*(feature.name for feature in self.lists), *weights]))

    @cached_property
    def list_positions(self) -> dict[str, tuple[int, int]]:
        """From which to which of the P positions each list's identifiers stand, by its name."""
        ends = [*accumulate((feature.length for feature in self.lists), initial=0)]
        return {feature.name: span for feature, span in zip(self.lists, pairwise(ends), strict=True)}

    @cached_property
    def num_positions(self) -> int:
        """P, the places that identifiers of all lists have in a row together."""
        return sum(feature.length for feature in self.lists)

    @cached_property
    def num_dense(self) -> int:
        """Dense inputs of the ranker: those of `dense_names`, then the weight of each position of a list."""
        return len(self.dense_names) + self.num_positions

    @cached_property
    def _with_tables(self) -> tuple[CategoricalFeature, ...]:
        return (*self.categorical, *self.lists)

    @cached_property
    def plain_names(self) -> tuple[str, ...]:
        """Categorical features that are a column of the log, or of the clock, as it is."""
        return tuple(feature.name for feature in self.categorical if feature.identifiers == (feature.name,))

    @cached_property
    def identifiers(self) -> tuple[str, ...]:
        """Columns of the log, or of the clock, that the categorical features are made of."""
        return tuple(dict.fromkeys(name for feature in self.categorical for name in feature.identifiers))

    @cached_property
    def number_features(self) -> tuple[NumberFeature, ...]:
        """The numbers of the context that are dense features."""
        return tuple(NumberFeature(name=one) if isinstance(one, str) else one for one in self.numbers)

    @cached_property
    def number_columns(self) -> tuple[str, ...]:
        """The numbers of the log that features are made of."""
        ranges = [feature.quantiles.number for feature in self.categorical if feature.quantiles]
        return tuple(dict.fromkeys([*(number.name for number in self.number_features), *ranges]))

    @cached_property
    def sequence_names(self) -> tuple[str, ...]:
        """What each position of the sequence has an id for."""
        return (*self.sequence.entities, *_SEQUENCE_FIXED)

    @cached_property
    def dense_names(self) -> tuple[str, ...]:
        """Dense example columns (float32), in the order of the model's input."""
        names = []
        for number in self.number_features:
            names += [number.name, absence_name(number.name)] if number.flag_absent else [number.name]
        for entity in self.counts.entities:
            for action_type in self.counts.action_types:
                names += [count_name(entity, action_type, days) for days in self.counts.windows_days]
                names.append(recency_name(entity, action_type))
        names += [since_last_name(action_type) for action_type in self.since_last]
        return (*names, *self.engagement_names)

    @cached_property
    def engagement_names(self) -> tuple[str, ...]:
        """The dense columns that come from all users' events of earlier days."""
        return tuple(
            name
            for entity in self.engagement.entities
            for name in (volume_name(entity), *(engagement_name(entity, rate) for rate in ENGAGEMENT_RATES))
        )

    @cached_property
    def num_ids(self) -> dict[str, int]:
        """How many ids every embedding table tells apart, by table name."""
        return self._with_fixed({feature.name: feature.num_ids for feature in self._with_tables})

    @cached_property
    def moduli(self) -> dict[str, int]:
        """What hashes of every table are taken modulo, by name; also of those of pretrained vectors."""
        own = {feature.name: feature.modulus for feature in self._with_tables}
        return self._with_fixed(own | dict.fromkeys(self.vector_names, NUM_HASHES))

    @cached_property
    def categorical_moduli(self) -> np.ndarray:
        """What hashes of every categorical feature are taken modulo, int64, shape (features,)."""
        return np.array([feature.modulus for feature in self.categorical])

    def _with_fixed(self, sizes: dict[str, int]) -> dict[str, int]:
        return {**sizes, **{sequence_column(name): size for name, size in _SEQUENCE_FIXED.items()}}

    @cached_property
    def binary_codes(self) -> dict[str, BinaryCode]:
        """The tables that blocks of a code are looked up in, by table name."""
        return {feature.name: feature.binary_code for feature in self.categorical if feature.binary_code is not None}

    @cached_property
    def exact_ids(self) -> dict[str, ExactIds]:
        """The tables whose ids have rows of their own, by table name."""
        return {feature.name: feature.exact for feature in self._with_tables if feature.exact is not None}

    @cached_property
    def learned(self) -> dict[str, RowRule]:
        """The tables whose rows training gives to ids, by table name."""
        return {feature.name: feature.learned for feature in self._with_tables if feature.learned is not None}

    @cached_property
    def indexed(self) -> tuple[str, ...]:
        """The tables of a version that have an index of ids: those with learned rows, and pretrained vectors."""
        return (*self.learned, *self.vector_names)

    @cached_property
    def tables(self) -> dict[str, int]:
        """Rows of every embedding table, by table name."""
        return self.num_ids | {name: code.num_rows for name, code in self.binary_codes.items()}

    @cached_property
    def categorical_tables(self) -> tuple[str, ...]:
        """The table of every categorical feature, then of every position of a list, in order."""
        return (*self.categorical_names, *(feature.name for feature in self.lists for _ in range(feature.length)))

    @cached_property
    def vector_names(self) -> tuple[str, ...]:
        """Pretrained vectors, in the order of the model's inputs."""
        return tuple(feature.name for feature in self.vectors)

    @cached_property
    def vector_dims(self) -> tuple[int, ...]:
        """Numbers of each of them."""
        return tuple(feature.dim for feature in self.vectors)

    @cached_property
    def served_columns(self) -> tuple[str, ...]:
        """What a served version looks up for each row: `categorical_tables`, then the tables of pretrained vectors."""
        return (*self.categorical_tables, *self.vector_names)

    @cached_property
    def sequence_tables(self) -> tuple[str, ...]:
        """The table of every id of a sequence position, in order."""
        return tuple(self.sequence_table(name) for name in self.sequence_names)

    def num_vectors(self, tables: tuple[str, ...]) -> int:
        """How many vectors one id of each of these tables makes together."""
        return sum(self.binary_codes[name].num_vectors if name in self.binary_codes else 1 for name in tables)

    def sequence_table(self, name: str) -> str:
        """The table that one id of a sequence position is looked up in: entities share the impression's own."""
        return sequence_column(name) if name in _SEQUENCE_FIXED else name


def sequence_column(name: str) -> str:
    """Example column (list of int64, latest action first) of one id of the sequence positions."""
    return f"sequence_{name}"


def count_name(entity: str, action_type: str, window_days: int) -> str:
    """Dense column: the user's actions of a type on the impression's entity within a trailing window."""
    return f"user_{entity}_{action_type}_{window_days}d"


def recency_name(entity: str, action_type: str) -> str:
    """Dense column: days since the user's last such action, the history's length when there was none."""
    return f"user_{entity}_{action_type}_days_since"


def since_last_name(action_type: str) -> str:
    """Dense column: days since the user's last action of a type, or of any, likewise."""
    return f"user_{action_type}_days_since"


def absence_name(number: str) -> str:
    """Dense column: 1 where a number of the context is absent."""
    return f"{number}_absent"


def volume_name(entity: str) -> str:
    """Dense column: impressions of the entity in the trailing window, up to the previous day."""
    return f"{entity}_impressions"


def engagement_name(entity: str, rate: str) -> str:
    """Dense column: smoothed actions per impression of the entity, up to the previous day."""
    return f"{entity}_{rate}_rate"
