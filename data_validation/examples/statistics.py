"""Statistics of tables as TensorFlow Metadata protos, as TensorFlow Data Validation makes them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import apache_beam as beam
import numpy as np
import pyarrow as pa
from tensorflow_metadata.proto.v0 import statistics_pb2

from components.common import parquet_files, storage
from components.common.beam import open_pipeline
from data_validation.examples.categories import Categories
from data_validation.examples.columns import ColumnStatistics
from data_validation.examples.numbers import Numbers, float_values

NUM_TOP_VALUES = 20
NUM_RANKS = 1000
NUM_BUCKETS = 10
ROWS_PER_BATCH = 500_000
_SHARES = np.linspace(0.0, 1.0, NUM_BUCKETS + 1)
_Feature = statistics_pb2.FeatureNameStatistics

TableStatistics = dict[str, ColumnStatistics]


def describe_table(table: pa.Table, categorical: frozenset[str]) -> TableStatistics:
    """Statistics of every column of some rows.

    Args:
        table: Numbers, bools, strings, or lists of those.
        categorical: Integer columns that hold identifiers.

    Raises:
        TypeError: If a column holds something else; it is named.
    """
    columns = {}
    for name in table.column_names:
        chunks = table[name].chunks
        column = pa.concat_arrays(chunks) if chunks else pa.array([], table.schema.field(name).type)
        try:
            columns[name] = ColumnStatistics.of(column, name in categorical)
        except TypeError as error:
            raise TypeError(f"column {name!r}: {error}") from error
    return columns


def merge_tables(first: TableStatistics, second: TableStatistics) -> TableStatistics:
    """The statistics of both together; a column that one of them lacks is missing there."""
    merged = {}
    for name in [*first, *(name for name in second if name not in first)]:
        both = [part[name] for part in (first, second) if name in part]
        merged[name] = both[0] if len(both) == 1 else both[0].merge(both[1])
    return merged


def to_proto(found: TableStatistics, name: str) -> statistics_pb2.DatasetFeatureStatisticsList:
    """The proto of one data set; `name` is its name there."""
    statistics = statistics_pb2.DatasetFeatureStatisticsList()
    num_rows = max((column.num_rows for column in found.values()), default=0)
    dataset = statistics.datasets.add(name=name, num_examples=num_rows)
    for column_name, column in found.items():
        feature = dataset.features.add()
        feature.path.step.append(column_name)
        common = _common(column, num_rows)
        if isinstance(column.values, Categories):
            feature.type = _Feature.STRING if column.kind.endswith("string") else _Feature.INT
            _describe_categories(feature.string_stats, column.values, common)
        else:
            feature.type = _Feature.FLOAT if column.kind in ("float", "double", "halffloat") else _Feature.INT
            _describe_numbers(feature.num_stats, column.values, common)
    return statistics


def compute_statistics(
    table: pa.Table, name: str, categorical: frozenset[str] = frozenset()
) -> statistics_pb2.DatasetFeatureStatisticsList:
    """Statistics of a table in memory."""
    return to_proto(describe_table(table, categorical), name)


def _common(column: ColumnStatistics, num_rows: int) -> statistics_pb2.CommonStatistics:
    lengths = column.lengths
    present = int(lengths.counts.sum())
    total = int(lengths.codes @ lengths.counts) if present else 0
    common = statistics_pb2.CommonStatistics(
        num_non_missing=present,
        num_missing=num_rows - present,
        tot_num_values=total,
        min_num_values=int(lengths.codes.min()) if present else 0,
        max_num_values=int(lengths.codes.max()) if present else 0,
        avg_num_values=total / present if present else 0.0,
    )
    if present:
        common.num_values_histogram.type = statistics_pb2.Histogram.QUANTILES
        _add_quantiles(common.num_values_histogram, lengths.quantiles(_SHARES).astype(np.float64), present)
    return common


def _add_quantiles(histogram: statistics_pb2.Histogram, edges: np.ndarray, total: int) -> None:
    for low, high in zip(edges[:-1], edges[1:], strict=True):
        histogram.buckets.add(low_value=low, high_value=high, sample_count=total / NUM_BUCKETS)


def _describe_numbers(
    stats: statistics_pb2.NumericStatistics, numbers: Numbers, common: statistics_pb2.CommonStatistics
) -> None:
    stats.common_stats.CopyFrom(common)
    stats.num_zeros = numbers.num_zeros
    equal_width = stats.histograms.add(type=statistics_pb2.Histogram.STANDARD, num_nan=numbers.num_nan)
    quantiles = stats.histograms.add(type=statistics_pb2.Histogram.QUANTILES, num_nan=numbers.num_nan)
    if numbers.num_values > numbers.num_nan:
        stats.min, stats.max = numbers.lowest, numbers.highest
    if not numbers.num_finite:
        return
    stats.mean, stats.std_dev = numbers.mean, numbers.std_dev
    edges = numbers.quantiles(_SHARES)
    stats.median = float(numbers.quantiles(np.array([0.5]))[0])
    edges[0], edges[-1] = max(numbers.lowest, edges[0]), numbers.highest
    _add_quantiles(quantiles, edges, numbers.num_finite)
    for low, high, count in equal_width_buckets(numbers):
        equal_width.buckets.add(low_value=low, high_value=high, sample_count=count)


def equal_width_buckets(numbers: Numbers) -> Iterator[tuple[float, float, float]]:
    """Bounds and counts of `NUM_BUCKETS` buckets of equal width; values are placed to 0.05%."""
    values = np.clip(float_values(numbers.histogram.codes), numbers.lowest, numbers.highest)
    low, high = float(values.min()), float(values.max())
    if np.isfinite(numbers.lowest):
        low = numbers.lowest
    if np.isfinite(numbers.highest):
        high = numbers.highest
    width = (high - low) / NUM_BUCKETS
    if not low < low + width < np.inf or not high - width < high:
        # One value, or a range that floats cannot divide.
        yield low, high, float(numbers.num_finite)
        return
    counts, edges = np.histogram(values, bins=NUM_BUCKETS, range=(low, high), weights=numbers.histogram.counts)
    yield from zip(edges[:-1].tolist(), edges[1:].tolist(), counts.tolist(), strict=True)


def _describe_categories(
    stats: statistics_pb2.StringStatistics, categories: Categories, common: statistics_pb2.CommonStatistics
) -> None:
    stats.common_stats.CopyFrom(common)
    stats.unique = categories.num_distinct
    stats.avg_length = categories.num_bytes / max(common.tot_num_values, 1)
    frequent = categories.most_frequent(NUM_RANKS)
    for rank, (value, count) in enumerate(
        zip(frequent["value"].to_pylist(), frequent["count"].to_pylist(), strict=True)
    ):
        if rank < NUM_TOP_VALUES:
            stats.top_values.add(value=str(value), frequency=count)
        stats.rank_histogram.buckets.add(low_rank=rank, high_rank=rank, label=str(value), sample_count=count)


class DescribeFile(beam.DoFn):
    """Statistics of a Parquet file's batches of rows."""

    def __init__(self, categorical: frozenset[str], left_out: frozenset[str] = frozenset()) -> None:
        """Count integers of the `categorical` columns one by one; columns in `left_out` are not read."""
        self._categorical, self._left_out = categorical, left_out

    def process(self, element: tuple[str, str]) -> Iterator[tuple[str, TableStatistics]]:
        """Yield (name of the data set, statistics) for an element (name, file)."""
        name, uri = element
        columns = [column for column in parquet_files.parquet_columns(uri) if column not in self._left_out]
        empty = True
        for table in parquet_files.read_parquet_batches(uri, ROWS_PER_BATCH, columns):
            empty = False
            yield name, describe_table(table, self._categorical)
        if empty:
            yield name, describe_table(parquet_files.read_parquet(uri, columns), self._categorical)


class MergeStatistics(beam.CombineFn):
    """Adds up statistics of one data set."""

    def create_accumulator(self) -> TableStatistics:
        """The statistics of no rows."""
        return {}

    def add_input(self, total: TableStatistics, part: TableStatistics) -> TableStatistics:
        """Add one batch."""
        return merge_tables(total, part)

    def merge_accumulators(self, parts: Iterable[TableStatistics]) -> TableStatistics:
        """Add up partial sums."""
        total: TableStatistics = {}
        for part in parts:
            total = merge_tables(total, part)
        return total

    def extract_output(self, total: TableStatistics) -> TableStatistics:
        """The statistics of all batches."""
        return total


class WriteStatistics(beam.DoFn):
    """Writes the proto of a data set."""

    def __init__(self, folder_uri: str) -> None:
        """Write into `folder_uri`."""
        self._folder_uri = folder_uri

    def process(self, element: tuple[str, TableStatistics]) -> None:
        """Write `<name>.pb`, with columns in the order of their names whatever merged first."""
        name, columns = element
        content = to_proto(dict(sorted(columns.items())), name).SerializeToString(deterministic=True)
        storage.write_bytes(storage.join_uri(self._folder_uri, f"{name}.pb"), content)


def write_statistics(
    files: dict[str, list[str]],
    folder_uri: str,
    categorical: frozenset[str],
    left_out: frozenset[str],
    beam_options: tuple[str, ...],
) -> None:
    """Compute the statistics of several data sets in one Beam pipeline.

    Args:
        files: Parquet files of each data set, by its name.
        folder_uri: Where `<name>.pb` is written.
        categorical: Integer columns that hold identifiers.
        left_out: Columns that are not described.
        beam_options: The runner and its options.
    """
    parts = [(name, uri) for name, uris in files.items() for uri in uris]
    with open_pipeline(beam_options) as pipeline:
        _ = (
            pipeline
            | beam.Create(parts)
            | beam.Reshuffle()
            | beam.ParDo(DescribeFile(categorical, left_out))
            | beam.CombinePerKey(MergeStatistics())
            | beam.ParDo(WriteStatistics(folder_uri))
        )


def read_statistics(uri: str) -> statistics_pb2.DatasetFeatureStatisticsList:
    """Read a proto that `write_statistics` wrote."""
    return statistics_pb2.DatasetFeatureStatisticsList.FromString(storage.read_bytes(uri))
