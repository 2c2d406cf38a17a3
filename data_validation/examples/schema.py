"""The schema of examples as a TensorFlow Metadata proto: from the feature list, inferred, relaxed."""

from __future__ import annotations

from typing import TypeAlias

from google.protobuf import text_format
from tensorflow_metadata.proto.v0 import schema_pb2, statistics_pb2

from components.common import storage
from components.common.errors import InputError
from components.features.examples import LABELS, NEGATIVE_KEPT
from components.features.feature_list import CLOCK_FEATURES, FeatureConfig, sequence_column
from data_validation.config import ValidationConfig

# Labels are known in training, not when serving.
TRAINING_ENVIRONMENT, SERVING_ENVIRONMENT = "TRAINING", "SERVING"
MAX_STRING_DOMAIN = 100
_TRUE, _FALSE = {"TRUE", "true", "SET", "set", "1", ""}, {"FALSE", "false", "CLEAR", "clear", "0"}
_Feature: TypeAlias = statistics_pb2.FeatureNameStatistics


def contract_schema(features: FeatureConfig, config: ValidationConfig) -> schema_pb2.Schema:
    """The schema that the feature list implies: names, types, presence, value counts, domains, drift limits."""
    schema = schema_pb2.Schema(default_environment=[TRAINING_ENVIRONMENT, SERVING_ENVIRONMENT])
    for name in features.categorical_names:
        feature = _required(schema, name, schema_pb2.INT)
        feature.int_domain.min, feature.int_domain.is_categorical = 0, True
        if name not in CLOCK_FEATURES:
            feature.drift_comparator.infinity_norm.threshold = config.max_drift
            feature.skew_comparator.infinity_norm.threshold = config.max_drift
    for name in features.dense_names:
        feature = _required(schema, name, schema_pb2.FLOAT)
        if name not in features.number_columns:
            feature.float_domain.min = 0.0
        feature.float_domain.disallow_nan = feature.float_domain.disallow_inf = True
        for comparator in (feature.drift_comparator, feature.skew_comparator):
            comparator.jensen_shannon_divergence.threshold = config.max_divergence
            comparator.jensen_shannon_divergence.source.type = schema_pb2.HistogramSelection.QUANTILES
    for name in features.sequence_names:
        feature = _required(schema, sequence_column(name), schema_pb2.INT)
        feature.int_domain.min, feature.int_domain.is_categorical = 0, True
        feature.value_count.min, feature.value_count.max = 0, features.sequence.length
    for own in features.lists:
        feature = _required(schema, own.name, schema_pb2.INT)
        feature.int_domain.min, feature.int_domain.is_categorical = 0, True
        feature.value_count.min = 0
        feature.drift_comparator.infinity_norm.threshold = config.max_drift
        feature.skew_comparator.infinity_norm.threshold = config.max_drift
    for name in dict.fromkeys(own.weights for own in features.lists if own.weights is not None):
        feature = _required(schema, name, schema_pb2.FLOAT)
        feature.float_domain.min = feature.value_count.min = 0
        feature.float_domain.disallow_nan = feature.float_domain.disallow_inf = True
    for name in LABELS:
        feature = _required(schema, name, schema_pb2.INT)
        feature.int_domain.min = 0
        feature.int_domain.max = 1 if name in ("clicked", "good_clicked") else 2**15 - 1
    _required(schema, "conversion_value", schema_pb2.FLOAT)
    for name in ("label_mature", NEGATIVE_KEPT):
        _required(schema, name, schema_pb2.INT).int_domain.max = 1
    for feature in schema.feature:
        if feature.name in (*LABELS, "conversion_value", "label_mature", NEGATIVE_KEPT):
            feature.not_in_environment.append(SERVING_ENVIRONMENT)
    return schema


def _required(schema: schema_pb2.Schema, name: str, kind: schema_pb2.FeatureType) -> schema_pb2.Feature:
    feature = schema.feature.add(name=name, type=kind)
    feature.presence.min_fraction = 1.0
    feature.presence.min_count = 1
    return feature


def infer_schema(
    statistics: statistics_pb2.DatasetFeatureStatisticsList, max_string_domain: int = MAX_STRING_DOMAIN
) -> schema_pb2.Schema:
    """The schema that statistics suggest, by the rules of TensorFlow Data Validation's `infer_schema`.

    A column that is always there with one number of values has a shape, others a value count; few different strings
    are a domain; integers 0 and 1 are booleans; strings that are all integers are an integer domain.
    """
    schema = schema_pb2.Schema()
    for feature in statistics.datasets[0].features:
        add_feature(schema, feature, max_string_domain)
    return schema


def add_feature(schema: schema_pb2.Schema, found: _Feature, max_string_domain: int = MAX_STRING_DOMAIN) -> None:
    """Add what one column's statistics suggest."""
    kinds = {_Feature.INT: schema_pb2.INT, _Feature.FLOAT: schema_pb2.FLOAT}
    feature = schema.feature.add(name=found.path.step[0], type=kinds.get(found.type, schema_pb2.BYTES))
    common = common_statistics(found)
    feature.presence.min_count = min(common.num_non_missing, 1)
    if not common.num_missing:
        feature.presence.min_fraction = 1.0
    if common.num_non_missing:
        _infer_lengths(feature, common)
    if found.type == _Feature.INT and found.HasField("num_stats"):
        if found.num_stats.min >= 0 and found.num_stats.max == 1:
            feature.bool_domain.SetInParent()
    elif found.type == _Feature.INT:
        feature.int_domain.is_categorical = True
    elif found.HasField("string_stats"):
        _infer_strings(schema, feature, found, max_string_domain)


def _infer_lengths(feature: schema_pb2.Feature, common: statistics_pb2.CommonStatistics) -> None:
    low, high = common.min_num_values, common.max_num_values
    if low == high and low > 0 and not common.num_missing:
        feature.shape.dim.add(size=low)
    elif low == high and low > 0:
        feature.value_count.min = feature.value_count.max = low
    elif low > 0:
        feature.value_count.min = 1


def _infer_strings(
    schema: schema_pb2.Schema, feature: schema_pb2.Feature, found: _Feature, max_string_domain: int
) -> None:
    labels = [bucket.label for bucket in found.string_stats.rank_histogram.buckets]
    true, false = [label for label in labels if label in _TRUE], [label for label in labels if label in _FALSE]
    if labels and len(true) <= 1 and len(false) <= 1 and len(true) + len(false) == len(labels):
        feature.bool_domain.true_value, feature.bool_domain.false_value = "".join(true), "".join(false)
    elif labels and all(_is_integer(label) for label in labels):
        feature.int_domain.SetInParent()
    elif 1 <= len(labels) <= max_string_domain:
        feature.domain = feature.name
        schema.string_domain.add(name=feature.name, value=sorted(labels, key=str.encode))


def _is_integer(label: str) -> bool:
    return label.removeprefix("-").isdecimal() and label.isascii() and -(2**63) <= int(label) < 2**63


def common_statistics(found: _Feature) -> statistics_pb2.CommonStatistics:
    """Presence and value counts of a column of any kind."""
    return found.num_stats.common_stats if found.HasField("num_stats") else found.string_stats.common_stats


def string_domain(schema: schema_pb2.Schema, feature: schema_pb2.Feature) -> schema_pb2.StringDomain | None:
    """The strings that a feature may have, its own or one that it names."""
    if feature.HasField("string_domain"):
        return feature.string_domain
    return next((domain for domain in schema.string_domain if domain.name == feature.domain), None)


def update_schema(
    schema: schema_pb2.Schema, statistics: statistics_pb2.DatasetFeatureStatisticsList
) -> schema_pb2.Schema:
    """A copy that is relaxed just enough for the statistics to fit; to be reviewed before it is used.

    Ranges and domains are widened, presence is lowered, new columns are added and absent ones marked as deprecated.
    Types, the ban of NaN and infinity, and comparators stay: what breaks those is no matter of limits.
    """
    updated = schema_pb2.Schema()
    updated.CopyFrom(schema)
    features = {feature.path.step[0]: feature for feature in statistics.datasets[0].features}
    for feature in updated.feature:
        if feature.name in features:
            _relax(updated, feature, features[feature.name])
        else:
            feature.lifecycle_stage = schema_pb2.DEPRECATED
    known = {feature.name for feature in updated.feature}
    for name, statistic in features.items():
        if name not in known:
            add_feature(updated, statistic)
    return updated


def _relax(schema: schema_pb2.Schema, feature: schema_pb2.Feature, found: _Feature) -> None:
    common = common_statistics(found)
    total = common.num_non_missing + common.num_missing
    if feature.presence.min_fraction > common.num_non_missing / max(total, 1):
        feature.presence.ClearField("min_fraction")
    if feature.presence.min_count > common.num_non_missing:
        feature.presence.min_count = common.num_non_missing
    sizes = {dim.size for dim in feature.shape.dim}
    if feature.HasField("shape") and (common.num_missing or {common.min_num_values, common.max_num_values} != sizes):
        feature.ClearField("shape")
        _infer_lengths(feature, common)
    if feature.HasField("value_count"):
        feature.value_count.min = min(feature.value_count.min, common.min_num_values)
        if feature.value_count.HasField("max"):
            feature.value_count.max = max(feature.value_count.max, common.max_num_values)
    domain = string_domain(schema, feature)
    if domain is not None:
        labels = {bucket.label for bucket in found.string_stats.rank_histogram.buckets}
        domain.value.extend(sorted(labels - set(domain.value), key=str.encode))
    extremes = value_range(found)
    if extremes is None:
        return
    lowest, highest = extremes
    if feature.HasField("bool_domain") and not 0 <= lowest <= highest <= 1:
        feature.ClearField("bool_domain")
    for name in ("int_domain", "float_domain"):
        limits = getattr(feature, name)
        if feature.HasField(name) and limits.HasField("min"):
            limits.min = min(limits.min, type(limits.min)(lowest))
        if feature.HasField(name) and limits.HasField("max"):
            limits.max = max(limits.max, type(limits.max)(highest))


def value_range(found: _Feature) -> tuple[float, float] | None:
    """Smallest and largest number, None without any; of categorical integers, among the thousand most frequent."""
    if found.HasField("num_stats"):
        stats = found.num_stats
        num_nan = max((histogram.num_nan for histogram in stats.histograms), default=0)
        return (stats.min, stats.max) if stats.common_stats.tot_num_values > num_nan else None
    labels = [b.label for b in found.string_stats.rank_histogram.buckets if _is_integer(b.label)]
    numbers = [int(label) for label in labels]
    return (min(numbers), max(numbers)) if numbers else None


def parse_schema(text: str, where: str) -> schema_pb2.Schema:
    """A schema from its text format.

    Raises:
        InputError: If the text is no schema; `where` names its source.
    """
    try:
        return text_format.Parse(text, schema_pb2.Schema())
    except text_format.ParseError as error:
        raise InputError(
            f"{where}: not a schema in text format ({error}); write one with afterclick schema infer"
        ) from error


def read_schema(uri: str) -> schema_pb2.Schema:
    """Read a `.pbtxt` file.

    Raises:
        InputError: If it is absent or no schema.
    """
    if not storage.is_file(uri):
        raise InputError(f"{uri}: no such file; write one with afterclick schema infer")
    return parse_schema(storage.read_bytes(uri).decode(), uri)


def write_schema(uri: str, schema: schema_pb2.Schema) -> None:
    """Write a `.pbtxt` file."""
    storage.write_bytes(uri, text_format.MessageToString(schema).encode())
