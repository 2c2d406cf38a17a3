"""Parquet files on any filesystem."""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import groupby

import pyarrow as pa
import pyarrow.parquet as pq
from fsspec.implementations.local import LocalFileSystem

from components.common.errors import InputError
from components.common.filesystems import filesystem, is_local, naming_errors
from components.common.storage import writing


@dataclass(frozen=True)
class RowGroup:
    """One row group of a file."""

    uri: str
    number: int
    num_rows: int


def write_parquet(uri: str, table: pa.Table, rows_per_group: int = 65_536) -> None:
    """Write one Parquet file; the same table gives the same bytes.

    Training puts row groups in random order, so they must be small beside what it holds in memory.
    """
    with writing(uri) as stream:
        pq.write_table(table, stream, compression="zstd", row_group_size=rows_per_group)


def read_parquet(uri: str, columns: list[str] | None = None, content: bytes | None = None) -> pa.Table:
    """Read one Parquet file; from its `content`, where that is in memory already.

    Raises:
        InputError: If the file is absent, truncated or no Parquet file.
    """
    with _open_parquet(uri, content) as file:
        return file.read(columns=columns)


def parquet_columns(uri: str) -> list[str]:
    """The columns of a Parquet file.

    Raises:
        InputError: If the file is absent, truncated or no Parquet file.
    """
    with _open_parquet(uri) as file:
        return list(file.schema_arrow.names)


def parquet_row_groups(uri: str, content: bytes | None = None) -> list[int]:
    """Rows of every row group of a Parquet file; from its `content`, where that is in memory already.

    Raises:
        InputError: If the file is absent, truncated or no Parquet file.
    """
    with _open_parquet(uri, content) as file:
        return [file.metadata.row_group(number).num_rows for number in range(file.num_row_groups)]


def read_parquet_row_groups(uri: str, numbers: list[int]) -> pa.Table:
    """Read some row groups of a Parquet file.

    Raises:
        InputError: If the file is absent, truncated or no Parquet file.
    """
    with _open_parquet(uri) as file:
        return file.read_row_groups(numbers)


def read_pool(pool: Sequence[RowGroup]) -> pa.Table:
    """Read row groups of any files into one table, ordered by file and number.

    Raises:
        InputError: If a file is absent, truncated or no Parquet file.
    """
    files = groupby(sorted(pool, key=lambda group: (group.uri, group.number)), key=lambda group: group.uri)
    parts = [read_parquet_row_groups(uri, [group.number for group in groups]) for uri, groups in files]
    return pa.concat_tables(parts).combine_chunks()


def read_parquet_batches(
    uri: str, num_rows: int, columns: list[str] | None = None, content: bytes | None = None
) -> Iterator[pa.Table]:
    """Read one Parquet file in pieces of at most `num_rows` rows; a file without rows gives nothing.

    Args:
        uri: The file.
        num_rows: Rows of a piece.
        columns: All of them if not given.
        content: The file's bytes, where they are in memory already.

    Raises:
        InputError: If the file is absent, truncated or no Parquet file.
    """
    with _open_parquet(uri, content) as file:
        for batch in file.iter_batches(batch_size=num_rows, columns=columns):
            yield pa.table(batch)


@contextmanager
def _open_parquet(uri: str, content: bytes | None = None) -> Iterator[pq.ParquetFile]:
    try:
        if content is not None:
            yield pq.ParquetFile(io.BytesIO(content))
            return
        fs, path = filesystem(uri)
        # A local file is read by Arrow itself, without Python for every piece of it.
        own = isinstance(fs, LocalFileSystem)
        with naming_errors(uri, "read"), pa.OSFile(path) if own else fs.open(path, "rb") as stream:
            yield pq.ParquetFile(stream)
    except FileNotFoundError as error:
        raise InputError(f"{uri}: no such file") from error
    except (pa.ArrowInvalid, OSError) as error:
        if isinstance(error, OSError) and not is_local(uri):
            raise
        reason = str(error).splitlines()[0]
        raise InputError(f"{uri}: not a readable Parquet file ({reason}); deliver the file again") from error
