"""The kinds of features that a feature list declares."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field, model_validator

from components.common.config import Config, Distinct, GrownConfig
from components.features.binary_code import BinaryCode
from components.features.events import ACTION_TYPES
from components.features.exact_ids import ExactIds
from components.features.learned_rows import RowRule
from components.features.quantiles import Quantiles

# `hashing.feature_ids` are below 2^63.
NUM_HASHES = 2**63 - 1

Names = Annotated[tuple[str, ...], Distinct]


class CategoricalFeature(GrownConfig):
    """An identifier with an embedding table of its own."""

    later: ClassVar[tuple[str, ...]] = ("exact", "quantiles", "crossed")

    name: str = Field(
        description="user_id, item_id, a context identifier, hour_of_day, day_of_week; any of what is made here"
    )
    crossed: Names = Field((), description="identifiers or what the clock says, whose combination is the id")
    num_rows: int | None = Field(None, ge=2, le=2**31 - 1, description="rows of the table; ids are taken modulo this")
    binary_code: BinaryCode | None = Field(None, description="instead of num_rows: many ids on few rows")
    exact: ExactIds | None = Field(None, description="instead of num_rows: ids that training meets have own rows")
    quantiles: Quantiles | None = Field(None, description="instead of num_rows: ranges of a number")

    @model_validator(mode="after")
    def _check_size(self) -> CategoricalFeature:
        if [self.num_rows, self.binary_code, self.exact, self.quantiles].count(None) != 3:
            raise ValueError(f"{self.name}: give one of num_rows, binary_code, exact and quantiles")
        if len(self.crossed) == 1 or (self.crossed and self.quantiles):
            raise ValueError(f"{self.name}: crossed takes two identifiers or more, and no quantiles")
        return self

    @property
    def identifiers(self) -> tuple[str, ...]:
        """The columns of the log, or of the clock, that its id is made of."""
        return () if self.quantiles else self.crossed or (self.name,)

    @property
    def learned(self) -> RowRule | None:
        """How its ids come by their rows, if training decides it."""
        return self.exact or self.quantiles

    @property
    def num_ids(self) -> int:
        """How many ids the model tells apart."""
        if self.binary_code is not None:
            return self.binary_code.num_codes
        if self.learned is not None:
            return self.learned.num_rows
        assert self.num_rows is not None
        return self.num_rows

    @property
    def modulus(self) -> int:
        """What hashes are taken modulo; where rows are learned, they stay as they are."""
        return NUM_HASHES if self.learned is not None else self.num_ids


class ListFeature(CategoricalFeature):
    """A list of identifiers in each row, whose vectors are pooled to one; zeros for an empty list."""

    length: int = Field(16, ge=1, le=256, description="identifiers of a row that count: the first ones")
    pooling: Literal["mean", "sum"] = "mean"
    weights: str | None = Field(None, description="a column with a weight, 0 or more, for each identifier")

    @model_validator(mode="after")
    def _check_list(self) -> ListFeature:
        if self.binary_code is not None or self.quantiles is not None or self.crossed:
            raise ValueError(f"{self.name}: a list takes num_rows or exact")
        return self


class NumberFeature(Config):
    """A number of the context."""

    name: str
    scale: Literal["log", "min_max"] = Field(
        "log", description="the logarithm, standardised; or to 0..1 by the batch's range, beyond which it is cut off"
    )
    flag_absent: bool = Field(False, description="a further feature that is 1 where the number is absent")


class VectorFeature(Config):
    """A vector of each user or item, which another model made: delivered by day, frozen, batch-normalised."""

    name: str = Field(
        pattern=r"^[A-Za-z][A-Za-z0-9_]*$", description="of the section vectors, which says where it is delivered"
    )
    entity: str = Field(description="whose: the impression's user_id, item_id or a context identifier")
    dim: int = Field(ge=1, le=4096, description="numbers of a vector")

    def rows_per_vector(self, embedding_dim: int) -> int:
        """Rows of a table of that length that hold a vector, the last filled up with zeros."""
        return -(-self.dim // embedding_dim)


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
