"""Arrow files that the join writes between its stages."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
from fsspec.implementations.local import LocalFileSystem

from components.common import filesystems, storage

# Arrow writes each column's buffers by themselves, most of them small.
_BUFFER_BYTES = 1 << 20
# A shard's part of a file is small; object stores' clients would fetch megabytes beyond it.
_READ_AHEAD_BYTES = 1 << 16


def write_groups(uri: str, table: pa.Table, groups: np.ndarray) -> list[tuple[int, int]]:
    """Write a table as one Arrow IPC file with a record batch per group.

    Args:
        uri: The file.
        table: n rows.
        groups: The group of each row, int64, shape (n,).

    Returns:
        Number of each group that has rows, and of its record batch.
    """
    ordered, spans = grouped(table, groups)
    with (
        storage.writing(uri) as stream,
        pa.output_stream(stream, buffer_size=_BUFFER_BYTES) as buffered,
        pa.ipc.new_file(buffered, table.schema) as writer,
    ):
        if not spans:
            writer.write_batch(pa.RecordBatch.from_pylist([], schema=table.schema))
        for _, start, stop in spans:
            writer.write_table(ordered.slice(start, stop - start).combine_chunks())
    return [(group, number) for number, (group, _, _) in enumerate(spans)]


def grouped(table: pa.Table, groups: np.ndarray) -> tuple[pa.Table, list[tuple[int, int, int]]]:
    """Rows in the order of their group, else as they were, with (group, start, stop) of each group that has rows."""
    if not len(groups):
        return table, []
    small = groups.astype(np.uint16) if groups.max() < 2**16 else groups
    order = np.argsort(small, kind="stable")
    in_order = small[order]
    starts = np.flatnonzero(np.concatenate([[True], in_order[1:] != in_order[:-1]]))
    stops = [*starts[1:].tolist(), len(groups)]
    return table.take(pa.array(order)), list(zip(in_order[starts].tolist(), starts.tolist(), stops, strict=True))


def read_group(uri: str, number: int) -> pa.Table:
    """One record batch of an Arrow file, as a table."""
    with _open(uri) as reader:
        return pa.Table.from_batches([reader.get_batch(number)])


def read_arrow(uri: str) -> pa.Table:
    """A whole Arrow file."""
    with _open(uri) as reader:
        return reader.read_all()


def _open(uri: str) -> pa.ipc.RecordBatchFileReader:
    fs, path = filesystems.filesystem(uri)
    source = (
        pa.memory_map(path) if isinstance(fs, LocalFileSystem) else fs.open(path, "rb", block_size=_READ_AHEAD_BYTES)
    )
    return pa.ipc.open_file(source)


def shard_numbers(users: np.ndarray, num_shards: int) -> np.ndarray:
    """The shard of each row, by its hashed user, uint64; a user's rows are all in one. int64, shape (n,)."""
    return (users % np.uint64(num_shards)).astype(np.int64)


def file_numbers(identity: np.ndarray, num_files: int) -> np.ndarray:
    """Spread rows over files in the order of their hash: each file holds one range of hashes.

    Args:
        identity: Hashed impression ids, uint64, shape (n,).
        num_files: Files of the day.

    Returns:
        int64, shape (n,).
    """
    return ((identity >> np.uint64(32)) * np.uint64(num_files) >> np.uint64(32)).astype(np.int64)
