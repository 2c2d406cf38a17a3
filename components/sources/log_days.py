"""The days of a company's logs: which there are, and their rows in the contract's terms."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import date, timedelta
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from components.common.days import MICROSECONDS_PER_DAY, day_of, microseconds
from components.common.errors import InputError
from components.features.events import IMPRESSIONS, LOG_NAMES, TIMESTAMP, DatasetConfig
from components.features.wall_clock import to_wall_clock
from components.sources.config import FilesSource, LogFiles, LogQuery, OwnLogs, Source, SqlSource
from components.sources.day_rows import DayRows, FoundDays
from components.sources.expressions import LEFT_OUT, MOMENT, PER_SECOND, is_number, is_time
from components.sources.log_files import FoundFiles, beside_folders, day_folders, find_files
from components.sources.relation import Relation, connected, explained, in_words, of_files, of_query

_ROWS_PER_BATCH = 65_536
_SAMPLE_ROWS = 1_000
_MAX_UNREADABLE_SHARE = 0.01
_ONE_DAY = timedelta(days=1)


class OwnLog:
    """One log of a company."""

    def __init__(self, source: OwnLogs, log_name: str, dataset: DatasetConfig) -> None:
        """Look at where the log is.

        Raises:
            InputError: If there is nothing.
        """
        self.log_name, self.dataset = log_name, dataset
        self.table: LogFiles | LogQuery = source.impressions if log_name == IMPRESSIONS else source.actions
        self.folders: dict[date, str] = {}
        self._files: FoundFiles | None = None
        if isinstance(self.table, LogFiles):
            self.folders = day_folders(self.table.uri)
            if not self.folders:
                self._files = find_files(self.table.uri)
                if self._files is None:
                    raise InputError(
                        f"{self.table.uri}: there are no {log_name}: no Parquet, CSV or JSON files; correct "
                        f"source.{log_name}.uri"
                    )

    @property
    def has_folders(self) -> bool:
        """Whether each day has a folder of its own."""
        return bool(self.folders)

    def states(self) -> dict[str, str]:
        """What changes when a file of a log without folders is written anew."""
        return self._files.states if self._files is not None else {}

    def left_over(self) -> tuple[str, ...]:
        """Files that are not read: of a log without folders for days those among it, else those beside the folders."""
        if isinstance(self.table, LogFiles) and self.folders:
            return tuple(beside_folders(self.table.uri))
        return self._files.left_out if self._files is not None else ()

    def all_files(self, since: date = date.min) -> FoundFiles | None:
        """All files of the log, or those of folders from a day on; None for a query."""
        if not isinstance(self.table, LogFiles) or not self.folders:
            return self._files
        days = (self.files_of(day) for day in self.folders if day >= since)
        found = [files for files in days if files is not None]
        names = {uri: name for files in found for uri, name in files.names.items()}
        return FoundFiles(self.table.uri, found[0].format, names) if found else None

    def files_of(self, day: date) -> FoundFiles | None:
        """The files in a day's folder; None where there are none."""
        return find_files(self.folders[day]) if day in self.folders else None

    @contextmanager
    def relation(self, files: FoundFiles | None = None) -> Iterator[Relation]:
        """The log, or some of its files, for DuckDB.

        Raises:
            InputError: If it cannot be read, or its times cannot.
        """
        with connected() as connection:
            if isinstance(self.table, LogFiles):
                chosen = files or self._files or self.files_of(max(self.folders))
                assert chosen is not None
                relation = of_files(connection, self.log_name, self.dataset, self.table, chosen)
            else:
                relation = of_query(connection, self.log_name, self.dataset, self.table)
            _check_times(relation)
            yield relation

    def last_day(self) -> date | None:
        """The newest day of which there is anything."""
        if self.folders:
            return max(self.folders)
        with self.relation() as relation, explained(relation.where):
            newest = relation.connection.execute(
                f"SELECT max({relation.moment()}) FROM {relation.sql} WHERE {relation.condition}"
            ).fetchall()[0]
        if newest[0] is None:
            return None
        wall = to_wall_clock(np.array([newest[0]]), self.dataset.timezone)
        return day_of(int(wall[0]) // MICROSECONDS_PER_DAY)

    @contextmanager
    def file_rows(self, files: FoundFiles) -> Iterator[dict[str, DayRows]]:
        """The rows of each of a day's files, by name, whatever day their times say."""
        with tempfile.TemporaryDirectory() as folder:
            made = {}
            for number, (uri, name) in enumerate(files.names.items()):
                only = FoundFiles(files.uri, files.format, {uri: name})
                rows = made[name] = DayRows(Path(folder, f"{number}.parquet"))
                with self.relation(only) as relation:
                    for table, _ in _batches(relation):
                        _add(rows, table)
                    rows.finish(_contract_schema(relation))
            yield made

    @contextmanager
    def day_rows(self, days: Sequence[date]) -> Iterator[FoundDays]:
        """The rows of some days of a log without folders, which is read once for all of them."""
        with tempfile.TemporaryDirectory() as folder, self.relation() as relation:
            found = FoundDays(relation.where, {day: DayRows(Path(folder, f"{day}.parquet")) for day in days})
            # Two zones, of the times and of the days, may be a day apart.
            low, high = microseconds(min(days) - 2 * _ONE_DAY), microseconds(max(days) + 3 * _ONE_DAY)
            known = {microseconds(day) // MICROSECONDS_PER_DAY: rows for day, rows in found.days.items()}
            for table, ordinals in _batches(relation, _between(relation, low, high)):
                found.undated += table[MOMENT].null_count
                for ordinal in np.unique(ordinals):
                    if int(ordinal) in known:
                        _add(known[int(ordinal)], table.filter(pa.array(ordinals == ordinal)))
            schema = _contract_schema(relation)
            for rows in found.days.values():
                rows.finish(schema)
            yield found


def last_day(source: Source, dataset: DatasetConfig) -> date:
    """The last day that both logs have something of.

    Raises:
        InputError: If a log has no day at all.
    """
    if not isinstance(source, FilesSource | SqlSource):
        return source.last_day
    logs = [OwnLog(source, name, dataset) for name in LOG_NAMES]
    days = [log.last_day() for log in logs]
    known = []
    for log, day in zip(logs, days, strict=True):
        if day is None:
            raise InputError(f"source.{log.log_name}: has no row; correct where its rows come from, or its `where`")
        known.append(day)
    return min(known)


def _batches(relation: Relation, condition: str = "true") -> Iterator[tuple[pa.Table, np.ndarray]]:
    """Pieces of a log in the contract's columns, beside `moment` and `left_out`, and the day of each row since 1970."""
    sql = f"SELECT {relation.projection()} FROM {relation.sql} WHERE {relation.condition} AND {condition}"
    with explained(relation.where):
        reader = relation.connection.sql(sql).to_arrow_reader(_ROWS_PER_BATCH)
    while True:
        try:
            batch = pa.table(reader.read_next_batch())
        except StopIteration:
            return
        except (pa.ArrowException, OSError) as error:
            # What DuckDB finds while it reads comes through Arrow.
            raise InputError(f"{relation.where}: not readable ({in_words(error)}); correct it at the source") from error
        moments = batch[MOMENT]
        # No day has rows without a time: the epoch's is before any log.
        wall = to_wall_clock(pc.fill_null(moments, 0).to_numpy(), relation.dataset.timezone)
        timestamps = pc.if_else(moments.is_valid(), pa.array(wall).cast(TIMESTAMP), pa.scalar(None, TIMESTAMP))
        yield batch.append_column("timestamp", timestamps), wall // MICROSECONDS_PER_DAY


def _add(rows: DayRows, table: pa.Table) -> None:
    """Add the rows that are part of the log, and count the others by reason."""
    reasons = table[LEFT_OUT].drop_null().value_counts().to_pylist()
    rows.left_out.update({item["values"]: item["counts"] for item in reasons})
    rows.add(table.filter(table[LEFT_OUT].is_null()).drop_columns([LEFT_OUT, MOMENT]))


def _contract_schema(relation: Relation) -> pa.Schema:
    sql = f"SELECT {relation.projection()} FROM {relation.sql} LIMIT 0"
    schema: pa.Schema = relation.connection.sql(sql).to_arrow_table().schema
    fields = [item for item in schema if item.name not in (MOMENT, LEFT_OUT)]
    return pa.schema([*fields, pa.field("timestamp", TIMESTAMP)])


def _between(relation: Relation, low: int, high: int) -> str:
    """A condition that rows of days have; also on the column itself, where it lets files be skipped."""
    chosen, raw, kind = relation.time()
    condition = f"{relation.moment()} >= {low} AND {relation.moment()} < {high}"
    if is_time(kind) and kind != "DATE":
        condition += f" AND {raw} >= make_timestamp({low})::{kind} AND {raw} < make_timestamp({high})::{kind}"
    elif is_number(kind) and chosen.unit is not None:
        factor = PER_SECOND[chosen.unit] / PER_SECOND["us"]
        condition += f" AND {raw} >= {int(low * factor)} AND {raw} <= {int(high * factor) + 1}"
    return f"({condition} OR {relation.moment()} IS NULL)"


def _check_times(relation: Relation) -> None:
    """Check the first rows' times.

    Raises:
        InputError: Showing one that cannot be read, with what may be meant.
    """
    chosen, raw, kind = relation.time()
    with explained(relation.where):
        is_read = chosen.unit or chosen.format or not is_number(kind)
        moment = relation.moment() if is_read else "NULL::BIGINT"
        rows = relation.connection.execute(
            f"SELECT ({raw})::VARCHAR, {moment} FROM {relation.sql} WHERE {relation.condition} AND {raw} IS NOT NULL "
            f"LIMIT {_SAMPLE_ROWS}"
        ).fetchall()
    unreadable = [text for text, found in rows if found is None]
    if len(unreadable) > _MAX_UNREADABLE_SHARE * max(len(rows), 1):
        shown = chosen.column or chosen.sql
        raise InputError(
            f"{relation.where}: column {shown!r} for 'timestamp' holds times such as {unreadable[0]!r}, which "
            f"{_remedy(unreadable[0], relation.log_name, shown or '', chosen.unit)}"
        )


def _remedy(text: str, log_name: str, column: str, unit: str | None) -> str:
    where = f"source.{log_name}.columns.timestamp"
    try:
        size = abs(float(text))
    except ValueError:
        return f"is no time of ISO 8601; give its format: {where}: {{column: {column}, format: '%d/%m/%Y %H:%M:%S'}}"
    likely = [name for name, factor in PER_SECOND.items() if 4e8 <= size / factor < 7e9]
    said = f"is no time since 1980 in {unit}" if unit else "is a number without a unit"
    return f"{said}; say the unit: {where}: {{column: {column}, unit: {likely[0] if likely else 's'}}}"
