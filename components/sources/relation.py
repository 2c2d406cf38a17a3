"""A log as a relation of DuckDB, with the contract's columns as expressions over its own."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import fsspec

from components.common.errors import InputError
from components.features.events import Column, DatasetConfig
from components.sources.config import LogColumn, LogFiles, LogQuery
from components.sources.expressions import (
    FLAG,
    LEFT_OUT,
    MOMENT,
    identifier,
    identifiers,
    is_yes,
    left_out,
    mapped,
    moment,
    number,
    numbers,
    quoted,
    text,
    user_or_own,
)
from components.sources.log_files import CSV, PARQUET, FoundFiles

if TYPE_CHECKING:
    import duckdb

_MEMORY = "1GB"
_PROTOCOL = re.compile(r"\b([a-z][a-z0-9]*)://")


@dataclass(frozen=True)
class Relation:
    """A log that can be asked.

    Attributes:
        connection: To DuckDB.
        log_name: `impressions` or `actions`.
        dataset: The contract.
        table: How the log's columns map to the contract's.
        sql: What follows FROM.
        where: What the user knows it by.
        types: The type in DuckDB of every column that it has.
    """

    connection: duckdb.DuckDBPyConnection
    log_name: str
    dataset: DatasetConfig
    table: LogFiles | LogQuery
    sql: str
    where: str
    types: dict[str, str]
    _asked: dict[str, str] = field(default_factory=dict, repr=False, compare=False)

    @property
    def condition(self) -> str:
        """Which rows are part of the log."""
        return f"({self.table.where})" if self.table.where else "true"

    def origin(self, column: Column) -> tuple[LogColumn, str, str] | None:
        """Where a column comes from, its raw expression and that one's type; None where the log does not have it.

        Raises:
            InputError: If the log must have it.
        """
        given = self.table.columns.get(column.name)
        chosen = given or LogColumn(column=column.name)
        if chosen.constant is not None:
            value = chosen.constant
            if isinstance(value, str):
                return chosen, quoted(value, "'"), "VARCHAR"
            return chosen, repr(value), "BIGINT" if isinstance(value, int) else "DOUBLE"
        if chosen.sql is not None:
            return chosen, f"({chosen.sql})", self._type_of(f"({chosen.sql})", column.name)
        assert chosen.column is not None
        known = {name.lower(): name for name in self.types}
        name = chosen.column if chosen.column in self.types else known.get(chosen.column.lower())
        if name is not None:
            return chosen, quoted(name), self.types[name]
        if given is not None or column.required or column.delivered:
            raise InputError(self._absent(column, chosen.column))
        return None

    def _absent(self, column: Column, name: str) -> str:
        remedy = f"name the right one under source.{self.log_name}.columns"
        if column.name == "source":
            remedy += ", or say what all actions are: source: {constant: onsite} for those that name their impression"
        if column.name in ("impression_id", "action_id"):
            remedy += f", or make one of what tells the rows apart: {column.name}: {{sql: \"concat_ws('-', a, b)\"}}"
        return f"{self.where}: no column {name!r} for {column.name!r}; it has {list(self.types)}; {remedy}"

    def _type_of(self, expression: str, name: str) -> str:
        if expression not in self._asked:
            # DuckDB guesses at a CSV anew whenever it is asked.
            asked = f"DESCRIBE SELECT {expression} FROM {self.sql} LIMIT 0"
            with explained(f"{self.where}: source.{self.log_name}.columns.{name}.sql"):
                self._asked[expression] = self.connection.execute(asked).fetchall()[0][1]
        return self._asked[expression]

    def time(self) -> tuple[LogColumn, str, str]:
        """The origin of `timestamp`."""
        column = next(column for column in self.dataset.columns(self.log_name) if column.name == "timestamp")
        found = self.origin(column)
        assert found is not None
        return found

    def has(self, name: str) -> bool:
        """Whether a column of the contract comes from somewhere."""
        columns = self.dataset.columns(self.log_name)
        return any(column.name == name and self.origin(column) is not None for column in columns)

    def moment(self) -> str:
        """Microseconds since 1970 in UTC, or null where the time cannot be read."""
        return moment(*self.time(), self.where)

    def projection(self) -> str:
        """What follows SELECT: the moment, why a row is left out, and the contract's other columns.

        Raises:
            InputError: Naming a column that is absent, or whose type would have to be guessed at.
        """
        parts = {MOMENT: self.moment()}
        origins = {column.name: (column, self.origin(column)) for column in self.dataset.columns(self.log_name)}
        reasons = []
        for name, (column, origin) in origins.items():
            if name == "timestamp" or origin is None:
                continue
            chosen, raw, kind = origin
            place = f"{self.where}: column {chosen.column or name!r} for {name!r}"
            if chosen.separator is not None and column.kind not in ("identifiers", "numbers"):
                raise InputError(f"{place} has a separator, but is no list; declare it under dataset.context_lists")
            if column.kind == "identifier":
                parts[name] = identifier(chosen, raw, kind, place)
            elif column.kind == "number":
                parts[name] = number(raw, kind, place)
            elif column.kind == "identifiers":
                parts[name] = identifiers(chosen, raw, kind, place)
            elif column.kind == "numbers":
                parts[name] = numbers(chosen, raw, kind, place)
            else:
                mapping: Mapping[str, str] = self.table.action_types if name == "action_type" else self.table.sources
                parts[name] = mapped(text(raw, kind, place), mapping)
                reasons.append(left_out(text(raw, kind, place), mapping, name))
        users = self.dataset.users_without_id
        if users == "own_user" and "impression_id" in parts:
            user, impression = parts["user_id"], parts["impression_id"]
            kinds = self._type_of(user, "user_id"), self._type_of(impression, "impression_id")
            parts["user_id"] = user_or_own(user, kinds[0], impression, kinds[1])
        elif users == "drop":
            reasons.append(f"CASE WHEN coalesce({parts['user_id']}::VARCHAR, '') = '' THEN 'no user_id' END")
        parts[LEFT_OUT] = f"coalesce({', '.join([*reasons, 'NULL'])})::VARCHAR"
        return ", ".join(f"{expression} AS {quoted(name)}" for name, expression in parts.items())


@contextmanager
def explained(where: str) -> Iterator[None]:
    """DuckDB's errors as ours, with the place.

    Raises:
        InputError: In their place.
    """
    # Not with the other imports: imported within `long_lived`, DuckDB says on a page of its own that it leaks.
    import duckdb

    try:
        yield
    except duckdb.Error as error:
        raise InputError(
            f"{where}: not readable ({in_words(error)}); correct it, or how source describes it"
        ) from error


def in_words(error: Exception) -> str:
    """What an error of DuckDB says, without the query that it quotes."""
    return " ".join(str(error).split(" LINE 1:")[0].split("\n\nLINE 1:")[0].split())[:400]


@contextmanager
def connected() -> Iterator[duckdb.DuckDBPyConnection]:
    """DuckDB in memory, with bounded memory; what does not fit goes to temporary files."""
    import duckdb

    with duckdb.connect() as connection:
        connection.execute(f"SET memory_limit = '{_MEMORY}'")
        connection.execute("SET TimeZone = 'UTC'")
        connection.execute("SET enable_progress_bar = false")
        yield connection


def of_files(
    connection: duckdb.DuckDBPyConnection, log_name: str, dataset: DatasetConfig, table: LogFiles, files: FoundFiles
) -> Relation:
    """A log in files.

    Raises:
        InputError: If a file cannot be read.
    """
    _let_read(connection, files.uri)
    listed = ", ".join(quoted(uri, "'") for uri in files.names)
    options = {
        PARQUET: "union_by_name = true, hive_partitioning = false",
        CSV: "all_varchar = true, header = true, union_by_name = true, nullstr = ['', 'NULL', '\\N']",
    }.get(files.format, "union_by_name = true, convert_strings_to_integers = false")
    if files.format != PARQUET:
        options += ", hive_partitioning = false"
    where = next(iter(files.names)) if len(files.names) == 1 else files.uri
    sql = f"read_{files.format}([{listed}], {options})"
    return _described(Relation(connection, log_name, dataset, table, sql, where, {}))


def of_query(connection: duckdb.DuckDBPyConnection, log_name: str, dataset: DatasetConfig, table: LogQuery) -> Relation:
    """A log by a query.

    Raises:
        InputError: If DuckDB refuses it.
    """
    _let_read(connection, table.query)
    where = f"source.{log_name}.query"
    return _described(
        Relation(connection, log_name, dataset, table, f"({table.query.rstrip().rstrip(';')})", where, {})
    )


def _let_read(connection: duckdb.DuckDBPyConnection, text: str) -> None:
    """Let DuckDB read what the addresses in a text name, through fsspec, as everything else here does."""
    for protocol in sorted(set(_PROTOCOL.findall(text)) - {"file", "http", "https"}):
        with explained(f"{protocol}://"):
            try:
                connection.register_filesystem(fsspec.filesystem(protocol))
            except (ImportError, ValueError) as error:
                raise InputError(f"{protocol}://: {error}; for s3:// install s3fs, for gs:// gcsfs") from error


def _described(relation: Relation) -> Relation:
    with explained(relation.where):
        found = relation.connection.execute(f"DESCRIBE SELECT * FROM {relation.sql} LIMIT 0").fetchall()
    types = {str(row[0]): str(row[1]) for row in found}
    if not relation.table.flags:
        return replace(relation, types=types)
    missing = [name for name in relation.table.flags if name not in types]
    if missing:
        raise InputError(
            f"{relation.where}: no column {missing[0]!r} for source.{relation.log_name}.flags; it has {list(types)}"
        )
    parts = (
        f"SELECT *, {quoted(action, chr(39))} AS {FLAG} FROM {relation.sql} WHERE {is_yes(quoted(name), types[name])}"
        for name, action in relation.table.flags.items()
    )
    return replace(relation, sql=f"({' UNION ALL '.join(parts)})", types={**types, FLAG: "VARCHAR"})
