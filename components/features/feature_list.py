"""The feature list: declared once here; example columns, KeyedJaggedTensor keys and ONNX inputs are derived from it."""

from __future__ import annotations

from functools import cached_property
from typing import Annotated, ClassVar

from pydantic import Field, model_validator

from components.common.config import Config, Distinct, GrownConfig
from components.features.binary_code import BinaryCode
from components.features.events import ACTION_TYPES, DatasetConfig, TimeZone
from components.features.exact_ids import ExactIds

CLOCK_FEATURES = ("hour_of_day", "day_of_week")
NUM_GAP_BUCKETS = 32
ENGAGEMENT_RATES = ("click", "add_to_cart", "checkout")
# `hashing.feature_ids` are below 2^63.
NUM_HASHES = 2**63 - 1
_SEQUENCE_FIXED = {"action_type": len(ACTION_TYPES), "gap": NUM_GAP_BUCKETS}


Names = Annotated[tuple[str, ...], Distinct]


class CategoricalFeature(GrownConfig):
    """An identifier with an embedding table of its own."""

    later: ClassVar[tuple[str, ...]] = ("exact",)

    name: str = Field(description="user_id, item_id, a context identifier, hour_of_day or day_of_week")
    num_rows: int | None = Field(None, ge=2, le=2**31 - 1, description="rows of the table; ids are taken modulo this")
    binary_code: BinaryCode | None = Field(None, description="instead of num_rows: many ids on few rows")
    exact: ExactIds | None = Field(None, description="instead of num_rows: ids that training meets have own rows")

    @model_validator(mode="after")
    def _check_size(self) -> CategoricalFeature:
        if [self.num_rows, self.binary_code, self.exact].count(None) != 2:
            raise ValueError(f"{self.name}: give one of num_rows, binary_code and exact")
        return self

    @property
    def num_ids(self) -> int:
        """How many ids the model tells apart."""
        if self.binary_code is not None:
            return self.binary_code.num_codes
        if self.exact is not None:
            return self.exact.num_rows
        assert self.num_rows is not None
        return self.num_rows

    @property
    def modulus(self) -> int:
        """What hashes are taken modulo; those of exact ids stay as they are."""
        return NUM_HASHES if self.exact is not None else self.num_ids


class SequenceFeature(Config):
    """The user's last actions before the impression, each looked up in the tables of its entities."""

    length: int = Field(20, ge=1, le=1000)
    entities: Names = ("item_id",)
    action_types: Names = ACTION_TYPES


class CountFeatures(Config):
    """How often, and how long ago, the user acted on the impression's own entities."""

    entities: Names = ("item_id",)
    action_types: Names = ACTION_TYPES
    windows_days: Annotated[tuple[Annotated[int, Field(ge=1, le=365)], ...], Distinct] = Field(
        (7, 28), min_length=1, description="trailing windows"
    )


class EngagementFeatures(Config):
    """Smoothed rates of an entity up to the day before the impression."""

    entities: Names = ("item_id",)
    window_days: int = Field(28, ge=1, le=365)
    smoothing: float = Field(20.0, gt=0, description="impressions at the overall rate that each entity starts with")


class FeatureConfig(Config):
    """All features of a model."""

    categorical: tuple[CategoricalFeature, ...] = Field(min_length=1)
    sequence: SequenceFeature = SequenceFeature()
    counts: CountFeatures = CountFeatures()
    engagement: EngagementFeatures = EngagementFeatures()
    numbers: Names = Field((), description="context numbers used as they are")
    timezone: TimeZone = Field("UTC", description="by whose clocks days and hours are; set by dataset.timezone")

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
        known = set(ACTION_TYPES)
        for where, used in (("sequence", self.sequence.action_types), ("counts", self.counts.action_types)):
            if not set(used) <= known or not used:
                raise ValueError(f"{where}.action_types {list(used)}: must be some of {list(ACTION_TYPES)}")
        return self

    def check_against(self, dataset: DatasetConfig) -> None:
        """Check that every feature has a column.

        Raises:
            ValueError: Naming the feature without one.
        """
        identifiers = {"user_id", "item_id", *dataset.context_identifiers, *CLOCK_FEATURES}
        for feature in self.categorical:
            if feature.name not in identifiers:
                raise ValueError(f"features.categorical: {feature.name!r} is not one of {sorted(identifiers)}")
        for where in ("sequence", "counts", "engagement"):
            for entity in getattr(self, where).entities:
                if entity not in dataset.entities:
                    raise ValueError(
                        f"features.{where}.entities: {entity!r} is not among what both logs have, "
                        f"{list(dataset.entities)}; add it to dataset.action_entities if actions carry it, or take it "
                        "out here"
                    )
        for name in self.numbers:
            if name not in dataset.context_numbers:
                raise ValueError(f"features.numbers: {name!r} is not among the data set's context_numbers")

    @property
    def history_days(self) -> int:
        """Log days before an impression's day that its features may reach back to."""
        return max(*self.counts.windows_days, self.engagement.window_days)

    @cached_property
    def categorical_names(self) -> tuple[str, ...]:
        """Example columns (int64 hashes) with one id a row, in the order of the model's inputs."""
        return tuple(feature.name for feature in self.categorical)

    @cached_property
    def sequence_names(self) -> tuple[str, ...]:
        """What each position of the sequence has an id for."""
        return (*self.sequence.entities, *_SEQUENCE_FIXED)

    @cached_property
    def dense_names(self) -> tuple[str, ...]:
        """Dense example columns (float32), in the order of the model's input."""
        names = list(self.numbers)
        for entity in self.counts.entities:
            for action_type in self.counts.action_types:
                names += [count_name(entity, action_type, days) for days in self.counts.windows_days]
                names.append(recency_name(entity, action_type))
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
        return self._with_fixed({feature.name: feature.num_ids for feature in self.categorical})

    @cached_property
    def moduli(self) -> dict[str, int]:
        """What hashes of every embedding table are taken modulo, by table name."""
        return self._with_fixed({feature.name: feature.modulus for feature in self.categorical})

    def _with_fixed(self, sizes: dict[str, int]) -> dict[str, int]:
        return {**sizes, **{sequence_column(name): size for name, size in _SEQUENCE_FIXED.items()}}

    @cached_property
    def binary_codes(self) -> dict[str, BinaryCode]:
        """The tables that blocks of a code are looked up in, by table name."""
        return {feature.name: feature.binary_code for feature in self.categorical if feature.binary_code is not None}

    @cached_property
    def exact_ids(self) -> dict[str, ExactIds]:
        """The tables whose ids have rows of their own, by table name."""
        return {feature.name: feature.exact for feature in self.categorical if feature.exact is not None}

    @cached_property
    def tables(self) -> dict[str, int]:
        """Rows of every embedding table, by table name."""
        return self.num_ids | {name: code.num_rows for name, code in self.binary_codes.items()}

    @cached_property
    def categorical_tables(self) -> tuple[str, ...]:
        """The table of every categorical feature, in order."""
        return self.categorical_names

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


def volume_name(entity: str) -> str:
    """Dense column: impressions of the entity in the trailing window, up to the previous day."""
    return f"{entity}_impressions"


def engagement_name(entity: str, rate: str) -> str:
    """Dense column: smoothed actions per impression of the entity, up to the previous day."""
    return f"{entity}_{rate}_rate"
