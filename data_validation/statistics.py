"""Statistics of examples as TensorFlow Metadata protos."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from tensorflow_metadata.proto.v0 import statistics_pb2

from components.common.examples import USER_HASH

_IDENTITY = ("impression_id", "timestamp", USER_HASH)
_TOP_VALUES = 20
_NUM_BUCKETS = 10


def compute_statistics(table: pa.Table, name: str) -> statistics_pb2.DatasetFeatureStatisticsList:
    """Counts, moments and most frequent values of every feature and label column.

    Args:
        table: One day of examples.
        name: Names the data set in the proto.
    """
    statistics = statistics_pb2.DatasetFeatureStatisticsList()
    dataset = statistics.datasets.add(name=name, num_examples=table.num_rows)
    for column in table.column_names:
        if column not in _IDENTITY:
            _describe(dataset.features.add(), column, table[column].combine_chunks(), table.num_rows)
    return statistics


def _describe(feature: statistics_pb2.FeatureNameStatistics, name: str, column: pa.Array, num_rows: int) -> None:
    feature.path.step.append(name)
    if pa.types.is_list(column.type):
        lengths, values = pc.list_value_length(column).to_numpy(zero_copy_only=False), column.flatten()
    else:
        lengths, values = np.ones(num_rows), column.drop_null()
    common = statistics_pb2.CommonStatistics(
        num_non_missing=num_rows - column.null_count,
        num_missing=column.null_count,
        tot_num_values=len(values),
        min_num_values=int(lengths.min()) if num_rows else 0,
        max_num_values=int(lengths.max()) if num_rows else 0,
        avg_num_values=float(lengths.mean()) if num_rows else 0.0,
    )
    if pa.types.is_int64(values.type):
        feature.type = statistics_pb2.FeatureNameStatistics.INT
        counts = pc.value_counts(values)
        frequency = counts.field("counts").to_numpy()
        top = np.lexsort((counts.field("values").to_numpy(), -frequency))[:_TOP_VALUES]
        feature.string_stats.common_stats.CopyFrom(common)
        feature.string_stats.unique = len(counts)
        for place in top:
            value = str(counts.field("values")[int(place)].as_py())
            feature.string_stats.top_values.add(value=value, frequency=float(frequency[place]))
        return
    numbers = values.cast(pa.float64()).to_numpy(zero_copy_only=False)
    is_float = pa.types.is_floating(values.type)
    feature.type = statistics_pb2.FeatureNameStatistics.FLOAT if is_float else statistics_pb2.FeatureNameStatistics.INT
    finite = numbers[np.isfinite(numbers)]
    feature.num_stats.common_stats.CopyFrom(common)
    feature.num_stats.num_zeros = int((numbers == 0).sum())
    histogram = feature.num_stats.histograms.add(num_nan=len(numbers) - len(finite))
    for low, high, count in _equal_width(finite):
        histogram.buckets.add(low_value=low, high_value=high, sample_count=count)
    if len(finite):
        feature.num_stats.mean, feature.num_stats.std_dev = float(finite.mean()), float(finite.std())
        feature.num_stats.min, feature.num_stats.max = float(finite.min()), float(finite.max())
        feature.num_stats.median = float(np.median(finite))


def _equal_width(numbers: np.ndarray) -> list[tuple[float, float, float]]:
    if not len(numbers):
        return []
    counts, edges = np.histogram(numbers, bins=_NUM_BUCKETS)
    return list(zip(edges[:-1].tolist(), edges[1:].tolist(), counts.astype(float).tolist(), strict=True))
