"""The schema of examples as a TensorFlow Metadata proto, and what breaks it."""

from __future__ import annotations

from tensorflow_metadata.proto.v0 import anomalies_pb2, schema_pb2, statistics_pb2

from components.common.examples import LABELS, NEGATIVE_KEPT
from components.common.features import CLOCK_FEATURES, FeatureConfig, sequence_column
from data_validation.config import ValidationConfig

_LARGEST = 2**63 - 1


def contract_schema(features: FeatureConfig, config: ValidationConfig) -> schema_pb2.Schema:
    """The schema that the feature list implies: names, types, presence, value counts, domains, drift limits."""
    schema = schema_pb2.Schema()
    for name in features.categorical_names:
        feature = _required(schema, name, schema_pb2.INT)
        feature.int_domain.min = 0
        if name not in CLOCK_FEATURES:
            feature.drift_comparator.infinity_norm.threshold = config.max_drift
    for name in features.dense_names:
        feature = _required(schema, name, schema_pb2.FLOAT)
        if name not in features.numbers:
            feature.float_domain.min = 0.0
        feature.float_domain.disallow_nan = feature.float_domain.disallow_inf = True
    for name in features.sequence_names:
        feature = _required(schema, sequence_column(name), schema_pb2.INT)
        feature.int_domain.min = 0
        feature.value_count.min, feature.value_count.max = 0, features.sequence.length
    for name in LABELS:
        feature = _required(schema, name, schema_pb2.INT)
        feature.int_domain.min = 0
        feature.int_domain.max = 1 if name in ("clicked", "good_clicked") else 2**15 - 1
    _required(schema, "conversion_value", schema_pb2.FLOAT)
    for name in ("label_mature", NEGATIVE_KEPT):
        _required(schema, name, schema_pb2.INT).int_domain.max = 1
    return schema


def _required(schema: schema_pb2.Schema, name: str, kind: schema_pb2.FeatureType) -> schema_pb2.Feature:
    feature = schema.feature.add(name=name, type=kind)
    feature.presence.min_fraction = 1.0
    feature.presence.min_count = 1
    return feature


def validate_statistics(
    statistics: statistics_pb2.DatasetFeatureStatisticsList,
    schema: schema_pb2.Schema,
    config: ValidationConfig,
    num_impressions: int,
    previous: statistics_pb2.DatasetFeatureStatisticsList | None = None,
) -> anomalies_pb2.Anomalies:
    """Compare statistics with a schema and with the day before.

    Label densities are shares of `num_impressions`, the day's impressions before down-sampling.

    Returns:
        Anomalies by column; those of severity ERROR stop a run, those of severity WARNING show in the report.
    """
    anomalies = anomalies_pb2.Anomalies()
    anomalies.baseline.CopyFrom(schema)
    found = {feature.path.step[0]: feature for feature in statistics.datasets[0].features}
    num_examples = statistics.datasets[0].num_examples
    before = {feature.path.step[0]: feature for feature in previous.datasets[0].features} if previous else {}
    if not num_examples:
        _report(anomalies, "(all)", "Low number of examples", "there are no examples on this day")
        return anomalies
    for expected in schema.feature:
        if expected.name not in found:
            _report(anomalies, expected.name, "Column dropped", "the column is absent from the examples")
            continue
        _check_feature(anomalies, expected, found[expected.name], num_examples)
        if expected.name in before:
            _check_drift(anomalies, expected, found[expected.name], before[expected.name])
    for name in sorted(set(found) - {feature.name for feature in schema.feature}):
        _report(anomalies, name, "New column", "the column is not in the schema")
    for name, density in config.label_density.items():
        stats = found[name].num_stats
        share = (num_examples - stats.num_zeros) / max(num_impressions, 1)
        if not density.at_least <= share <= density.at_most:
            _report(
                anomalies,
                name,
                "Label density out of range",
                f"{share:.4f} of the rows are positive, expected {density.at_least} to {density.at_most}",
            )
    return anomalies


def _check_feature(
    anomalies: anomalies_pb2.Anomalies,
    expected: schema_pb2.Feature,
    found: statistics_pb2.FeatureNameStatistics,
    num_examples: int,
) -> None:
    is_float = found.type == statistics_pb2.FeatureNameStatistics.FLOAT
    if is_float != (expected.type == schema_pb2.FLOAT):
        _report(anomalies, expected.name, "Unexpected data type", "integers and floats are mixed up")
        return
    common = found.num_stats.common_stats if found.HasField("num_stats") else found.string_stats.common_stats
    if common.num_non_missing < expected.presence.min_fraction * num_examples:
        _report(anomalies, expected.name, "Column missing values", f"{common.num_missing} of {num_examples} are null")
    if expected.HasField("value_count") and common.max_num_values > expected.value_count.max:
        _report(
            anomalies,
            expected.name,
            "Unexpected number of values",
            f"up to {common.max_num_values} values, at most {expected.value_count.max} expected",
        )
    if not found.HasField("num_stats"):
        return
    stats = found.num_stats
    not_finite = sum(histogram.num_nan for histogram in stats.histograms)
    if not_finite:
        _report(anomalies, expected.name, "Invalid values", f"{not_finite} values are not finite")
    domain = expected.float_domain if expected.HasField("float_domain") else expected.int_domain
    has_domain = expected.HasField("float_domain") or expected.HasField("int_domain")
    lowest = domain.min if has_domain and domain.HasField("min") else float("-inf")
    highest = domain.max if has_domain and domain.HasField("max") else float("inf")
    if stats.min < lowest or stats.max > highest:
        _report(
            anomalies,
            expected.name,
            "Out-of-range values",
            f"found {stats.min:g} to {stats.max:g}, expected {lowest:g} to {highest:g}",
        )


def _check_drift(
    anomalies: anomalies_pb2.Anomalies,
    expected: schema_pb2.Feature,
    found: statistics_pb2.FeatureNameStatistics,
    before: statistics_pb2.FeatureNameStatistics,
) -> None:
    limit = expected.drift_comparator.infinity_norm.threshold
    if not limit or not found.HasField("string_stats") or not before.HasField("string_stats"):
        return
    shares = []
    for feature in (found, before):
        total = max(feature.string_stats.common_stats.tot_num_values, 1)
        shares.append({top.value: top.frequency / total for top in feature.string_stats.top_values})
    distance = max(abs(shares[0].get(v, 0.0) - shares[1].get(v, 0.0)) for v in shares[0].keys() | shares[1].keys())
    info = anomalies.drift_skew_info.add()
    info.path.step.append(expected.name)
    info.drift_measurements.add(type=anomalies_pb2.DriftSkewInfo.Measurement.L_INFTY, value=distance, threshold=limit)
    if distance > limit:
        text = f"L-infinity distance {distance:.3f} to the day before, at most {limit} expected"
        _report(anomalies, expected.name, "High drift", text, anomalies_pb2.AnomalyInfo.WARNING)


def _report(
    anomalies: anomalies_pb2.Anomalies,
    column: str,
    short: str,
    text: str,
    severity: anomalies_pb2.AnomalyInfo.Severity = anomalies_pb2.AnomalyInfo.ERROR,
) -> None:
    info = anomalies.anomaly_info[column]
    if info.short_description:
        info.short_description, info.description = "Multiple errors", f"{info.description}; {text}"
        info.severity = max(info.severity, severity)
    else:
        info.short_description, info.description, info.severity = short, text, severity


def stopping(anomalies: anomalies_pb2.Anomalies) -> dict[str, str]:
    """The anomalies that stop a run: column to description."""
    return {
        column: f"{info.short_description}: {info.description}"
        for column, info in sorted(anomalies.anomaly_info.items())
        if info.severity == anomalies_pb2.AnomalyInfo.ERROR
    }
