"""Writes the golden files that tie these tests to TensorFlow Data Validation.

The files are committed; TensorFlow Data Validation (TFDV) is needed only to
write them again, in an environment of its own (Python 3.11):

    pip install tensorflow-data-validation==1.16.1 "apache-beam[gcp]==2.61.0" \
        dill "setuptools<81"
    python make.py OUTPUT_FOLDER

It writes `rows.parquet` and its `statistics.pb` and `schema.pbtxt`, the drifted
`rows_next.parquet` and its `statistics_next.pb`, and `schema_drift.pbtxt` with
the `anomalies.pbtxt` that validating the second against the first gives.
"""

import pathlib
import sys

import apache_beam as beam
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import tensorflow_data_validation as tfdv
from google.protobuf import text_format
from tensorflow_metadata.proto.v0 import schema_pb2
from tfx_bsl.arrow import table_util

SEED = 7
ROWS = 5_000


def _zipf(rng: np.random.Generator, size: int, exponent: float) -> np.ndarray:
    """Draws ROWS ids in [0, size) with zipf weights."""
    weights = 1.0 / np.arange(1, size + 1) ** exponent
    return rng.choice(size, ROWS, p=weights / weights.sum())


def _with_nulls(rng: np.random.Generator, values: pa.Array, share: float) -> pa.Array:
    """Replaces about `share` of the values by nulls."""
    return pc.if_else(pa.array(rng.random(len(values)) >= share), values, None)


def _lists(rng: np.random.Generator, lengths: np.ndarray, values: pa.Array) -> pa.Array:
    """Cuts `values` into lists of the given lengths; a length of -1 is a null."""
    ends = np.maximum(lengths, 0).cumsum()
    offsets = pa.array(np.r_[0, ends], pa.int32(), mask=np.r_[lengths < 0, False])
    return pa.ListArray.from_arrays(offsets, values)


def make_rows() -> pa.Table:
    """Makes the first data set."""
    rng = np.random.default_rng(SEED)
    f_nan = rng.normal(2.0, 3.0, ROWS).astype(np.float32)
    f_nan[rng.random(ROWS) < 0.05] = np.nan
    f_zeros = rng.exponential(2.0, ROWS).astype(np.float32)
    f_zeros[rng.random(ROWS) < 0.5] = 0.0
    int_lengths = rng.integers(-1, 7, ROWS)
    string_lengths = rng.integers(1, 4, ROWS)
    names = np.array([f"name_{i}" for i in range(8)])
    words = np.array([f"word_{i:04d}" for i in range(2_000)])
    codes = np.array(["red", "green", "blue", "café", "naïve"])
    tags = np.array(["a", "bb", "ccc", "dddd"])
    return pa.table(
        {
            "f_normal": rng.normal(0.0, 1.0, ROWS).astype(np.float32),
            "f_skewed": rng.lognormal(1.0, 1.0, ROWS).astype(np.float32),
            "f_nulls": _with_nulls(rng, pa.array(rng.normal(10.0, 5.0, ROWS)), 0.1),
            "f_nan": f_nan,
            "f_zeros": f_zeros,
            "i_count": rng.poisson(3.0, ROWS),
            "i_wide": rng.integers(-(10**12), 10**12, ROWS),
            "i_category": _zipf(rng, 300, 1.1),
            "s_small": names[_zipf(rng, 8, 0.7)],
            "s_large": words[_zipf(rng, 2_000, 1.0)],
            "s_nulls": _with_nulls(rng, pa.array(codes[_zipf(rng, 5, 0.5)]), 0.2),
            "l_ints": _lists(
                rng,
                int_lengths,
                pa.array(rng.integers(0, 50, np.maximum(int_lengths, 0).sum())),
            ),
            "l_strings": _lists(rng, string_lengths, pa.array(tags[rng.integers(0, 4, string_lengths.sum())])),
            "b_flag": rng.integers(0, 2, ROWS),
            "constant": np.full(ROWS, 7),
        }
    )


def make_rows_next(rows: pa.Table) -> pa.Table:
    """Makes the second data set: the first one, drifted."""
    rng = np.random.default_rng(SEED + 1)

    def replaced(name: str, values: object) -> pa.Table:
        column = values if isinstance(values, pa.Array) else pa.array(values)
        return rows.set_column(rows.column_names.index(name), name, column)

    f_normal = rng.normal(0.3, 1.2, ROWS).astype(np.float32)
    f_normal[:3] = 9.5  # above the domain's maximum
    rows = replaced("f_normal", f_normal)
    rows = replaced("f_skewed", rng.lognormal(1.2, 1.1, ROWS).astype(np.float32))
    f_nan = rng.normal(2.0, 3.0, ROWS).astype(np.float32)
    f_nan[rng.random(ROWS) < 0.10] = np.nan
    rows = replaced("f_nan", f_nan)
    i_count = rng.poisson(3.0, ROWS)
    i_count[:2] = -4  # below the domain's minimum
    rows = replaced("i_count", _with_nulls(rng, pa.array(i_count), 0.02))
    i_category = _zipf(rng, 300, 0.9)
    i_category[:5] = 512  # above the domain's maximum
    rows = replaced("i_category", i_category)
    s_small = np.array([f"name_{i}" for i in range(8)])[_zipf(rng, 8, 1.2)].astype(object)
    s_small[:100] = "name_new"  # out of the domain
    rows = replaced("s_small", s_small)
    b_flag = rng.integers(0, 2, ROWS)
    b_flag[:4] = 2  # not a boolean
    rows = replaced("b_flag", b_flag)
    rows = rows.drop(["f_zeros"])
    return rows.append_column("f_new", pa.array(rng.random(ROWS, np.float32)))


def make_statistics(rows: pa.Table, path: pathlib.Path) -> object:
    """Computes the statistics of a table with TFDV's defaults.

    `i_category` alone comes with a schema, as only a schema can say that an
    integer is categorical. One batch keeps the quantile sketch deterministic.

    Args:
        rows: The table.
        path: The file to write, a serialized DatasetFeatureStatisticsList.

    Returns:
        The statistics, a DatasetFeatureStatisticsList.
    """
    feature = schema_pb2.Feature(name="i_category", type=schema_pb2.INT)
    feature.int_domain.is_categorical = True
    options = tfdv.StatsOptions(schema=schema_pb2.Schema(feature=[feature]))
    (batch,) = rows.combine_chunks().to_batches()
    with beam.Pipeline(runner="DirectRunner") as pipeline:
        _ = (
            pipeline
            | beam.Create([table_util.CanonicalizeRecordBatch(batch)])
            | tfdv.GenerateStatistics(options)
            | tfdv.WriteStatisticsToBinaryFile(str(path))
        )
    # Beam gives the features in no fixed order: write them in the table's.
    statistics = tfdv.load_stats_binary(str(path))
    order = {name: i for i, name in enumerate(rows.column_names)}
    statistics.datasets[0].features.sort(key=lambda f: order[f.path.step[0]])
    path.write_bytes(statistics.SerializeToString(deterministic=True))
    return statistics


def make_drift_schema(schema: schema_pb2.Schema) -> schema_pb2.Schema:
    """Copies a schema and adds the domains and comparators of the second run."""
    result = schema_pb2.Schema()
    result.CopyFrom(schema)
    tfdv.get_feature(result, "f_normal").float_domain.max = 6.0
    i_count = tfdv.get_feature(result, "i_count").int_domain
    i_count.min, i_count.max = 0, 100
    i_category = tfdv.get_feature(result, "i_category").int_domain
    i_category.min, i_category.max, i_category.is_categorical = 0, 299, True
    for name in ("s_small", "i_category"):
        comparator = tfdv.get_feature(result, name).drift_comparator
        comparator.infinity_norm.threshold = 0.01
    for name in ("f_normal", "f_skewed", "f_nan", "s_small"):
        comparator = tfdv.get_feature(result, name).drift_comparator
        comparator.jensen_shannon_divergence.threshold = 0.01
    return result


def main(folder: pathlib.Path) -> None:
    """Writes every golden file.

    Args:
        folder: Where to write them; made when missing.
    """
    folder.mkdir(parents=True, exist_ok=True)
    rows = make_rows()
    rows_next = make_rows_next(rows)
    pq.write_table(rows, folder / "rows.parquet", compression="zstd")
    pq.write_table(rows_next, folder / "rows_next.parquet", compression="zstd")

    statistics = make_statistics(rows, folder / "statistics.pb")
    statistics_next = make_statistics(rows_next, folder / "statistics_next.pb")
    schema = tfdv.infer_schema(statistics)
    schema_drift = make_drift_schema(schema)
    anomalies = tfdv.validate_statistics(statistics_next, schema_drift, previous_statistics=statistics)
    for name, message in (
        ("schema.pbtxt", schema),
        ("schema_drift.pbtxt", schema_drift),
        ("anomalies.pbtxt", anomalies),
    ):
        (folder / name).write_text(text_format.MessageToString(message))


if __name__ == "__main__":
    main(pathlib.Path(sys.argv[1]))
