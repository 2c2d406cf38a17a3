"""What statistics break of a schema, and how far they are from other statistics, as an Anomalies proto."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TypeAlias

from tensorflow_metadata.proto.v0 import anomalies_pb2, schema_pb2, statistics_pb2

from data_validation.examples.drift import divergence_by_chance, infinity_by_chance, infinity_norm, jensen_shannon
from data_validation.examples.schema import common_statistics, string_domain, value_range

_Feature: TypeAlias = statistics_pb2.FeatureNameStatistics
_Info = anomalies_pb2.AnomalyInfo
_Measurement = anomalies_pb2.DriftSkewInfo.Measurement
_INACTIVE = (
    schema_pb2.DEPRECATED,
    schema_pb2.DISABLED,
    schema_pb2.PLANNED,
    schema_pb2.ALPHA,
    schema_pb2.DEBUG_ONLY,
)
Severities = Mapping[str, str]
Problem = tuple[str, str, str]


def validate_statistics(
    statistics: statistics_pb2.DatasetFeatureStatisticsList,
    schema: schema_pb2.Schema,
    previous: statistics_pb2.DatasetFeatureStatisticsList | None = None,
    serving: statistics_pb2.DatasetFeatureStatisticsList | None = None,
    environment: str = "",
    severities: Severities | None = None,
    allows_chance: bool = False,
) -> anomalies_pb2.Anomalies:
    """Compare statistics with a schema, with the span before and with what was seen in serving.

    Args:
        statistics: What is judged.
        schema: What it must be.
        previous: The span before, for drift comparators.
        serving: The same columns as serving saw them, for skew comparators.
        environment: Features that the schema keeps out of this environment are not expected.
        severities: `error`, `warning` or `ignore` by the name of an anomaly type; errors where a type is absent.
        allows_chance: Whether limits of distances are wider by what samples of these sizes differ by alone.

    Returns:
        Anomalies by column or, for the data set as a whole, in `dataset_anomaly_info`.
    """
    report = Report(schema, severities or {}, allows_chance)
    dataset = statistics.datasets[0]
    features = {feature.path.step[0]: feature for feature in dataset.features}
    report.add_to_dataset(_dataset_problems(dataset.num_examples, schema, previous))
    for expected in schema.feature:
        if expected.deprecated or expected.lifecycle_stage in _INACTIVE:
            continue
        feature = features.get(expected.name)
        if feature is None:
            if _belongs_to(expected, schema, environment):
                report.add(expected.name, [("SCHEMA_MISSING_COLUMN", "Column dropped", "the column is absent")])
            continue
        report.add(expected.name, feature_problems(schema, expected, feature, dataset.num_examples))
        for other, comparator, drift in (
            (previous, expected.drift_comparator, True),
            (serving, expected.skew_comparator, False),
        ):
            there = {} if other is None else {f.path.step[0]: f for f in other.datasets[0].features}
            if expected.name in there:
                report.measure(expected.name, feature, there[expected.name], comparator, drift)
    for name in sorted(set(features) - {feature.name for feature in schema.feature}):
        report.add(name, [("SCHEMA_NEW_COLUMN", "New column", "the column is not in the schema")])
    return report.anomalies


def _belongs_to(feature: schema_pb2.Feature, schema: schema_pb2.Schema, environment: str) -> bool:
    if not environment:
        return True
    if environment in feature.not_in_environment:
        return False
    return environment in feature.in_environment or environment in schema.default_environment


def _dataset_problems(
    num_examples: float, schema: schema_pb2.Schema, previous: statistics_pb2.DatasetFeatureStatisticsList | None
) -> Iterator[Problem]:
    limits = schema.dataset_constraints
    if not num_examples:
        yield "DATASET_LOW_NUM_EXAMPLES", "No examples", "there are no examples"
    if limits.HasField("min_examples_count") and num_examples < limits.min_examples_count:
        text = f"{num_examples:g} examples, at least {limits.min_examples_count} expected"
        yield "DATASET_LOW_NUM_EXAMPLES", "Low number of examples", text
    if limits.HasField("max_examples_count") and num_examples > limits.max_examples_count:
        text = f"{num_examples:g} examples, at most {limits.max_examples_count} expected"
        yield "DATASET_HIGH_NUM_EXAMPLES", "High number of examples", text
    if previous is not None and limits.HasField("num_examples_drift_comparator"):
        yield from volume_problems(
            num_examples,
            previous.datasets[0].num_examples,
            limits.num_examples_drift_comparator.min_fraction_threshold,
            limits.num_examples_drift_comparator.max_fraction_threshold,
            "examples",
        )


def volume_problems(count: float, usual: float, at_least: float, at_most: float, what: str) -> Iterator[Problem]:
    """A count that is too small or too large a multiple of what is usual; a limit of 0 is none."""
    share = count / max(usual, 1)
    text = f"{count:g} {what} are {share:.2f} of the usual {usual:g}, expected {at_least:g} to {at_most:g}"
    if at_least and share < at_least:
        yield "COMPARATOR_LOW_NUM_EXAMPLES", "Low number of examples", text
    if at_most and share > at_most:
        yield "COMPARATOR_HIGH_NUM_EXAMPLES", "High number of examples", text


def feature_problems(
    schema: schema_pb2.Schema, expected: schema_pb2.Feature, found: _Feature, num_examples: float
) -> Iterator[Problem]:
    """What one column breaks: (type, title, text) of each anomaly."""
    kinds = {_Feature.INT: schema_pb2.INT, _Feature.FLOAT: schema_pb2.FLOAT}
    kind = kinds.get(found.type, schema_pb2.BYTES)
    if expected.type and kind != expected.type:
        names = [schema_pb2.FeatureType.Name(value) for value in (kind, expected.type)]
        yield "UNEXPECTED_DATA_TYPE", "Unexpected data type", f"values are {names[0]}, expected {names[1]}"
        return
    yield from _presence_problems(expected, common_statistics(found), num_examples)
    if found.HasField("num_stats"):
        yield from _number_problems(expected, found.num_stats)
    else:
        yield from _category_problems(schema, expected, found)
    extremes = value_range(found)
    if extremes is None:
        return
    lowest, highest = extremes
    if expected.HasField("bool_domain") and found.type == _Feature.INT and not 0 <= lowest <= highest <= 1:
        name = "BOOL_TYPE_BIG_INT" if highest > 1 else "BOOL_TYPE_SMALL_INT"
        yield name, "Non-boolean values", f"found {lowest:g} to {highest:g}, expected 0 and 1"
    for name, limits in (("INT", expected.int_domain), ("FLOAT", expected.float_domain)):
        wanted = expected.HasField("int_domain") if name == "INT" else expected.HasField("float_domain")
        if wanted and limits.HasField("min") and lowest < limits.min:
            kind_name = "INT_TYPE_SMALL_INT" if name == "INT" else "FLOAT_TYPE_SMALL_FLOAT"
            yield kind_name, "Out-of-range values", f"found {lowest:g}, expected at least {limits.min:g}"
        if wanted and limits.HasField("max") and highest > limits.max:
            kind_name = "INT_TYPE_BIG_INT" if name == "INT" else "FLOAT_TYPE_BIG_FLOAT"
            yield kind_name, "Out-of-range values", f"found {highest:g}, expected at most {limits.max:g}"


def _presence_problems(
    expected: schema_pb2.Feature, common: statistics_pb2.CommonStatistics, num_examples: float
) -> Iterator[Problem]:
    present = common.num_non_missing
    missing = f"{num_examples - present:g} of {num_examples:g} rows have no value"
    sizes = {dim.size for dim in expected.shape.dim}
    if expected.HasField("shape") and (
        present < num_examples or {common.min_num_values, common.max_num_values} != sizes
    ):
        text = f"{missing}, or numbers of values vary: {common.min_num_values} to {common.max_num_values}"
        yield "INVALID_FEATURE_SHAPE", "Feature shape dropped", text
    if present < expected.presence.min_fraction * num_examples:
        yield "FEATURE_TYPE_LOW_FRACTION_PRESENT", "Column missing values", missing
    if present < expected.presence.min_count:
        yield "FEATURE_TYPE_LOW_NUMBER_PRESENT", "Column missing values", missing
    limits = expected.value_count
    if not expected.HasField("value_count") or not present:
        return
    if common.min_num_values < limits.min:
        text = f"down to {common.min_num_values} values, at least {limits.min} expected"
        yield "FEATURE_TYPE_LOW_NUMBER_VALUES", "Missing values", text
    if limits.HasField("max") and common.max_num_values > limits.max:
        text = f"up to {common.max_num_values} values, at most {limits.max} expected"
        yield "FEATURE_TYPE_HIGH_NUMBER_VALUES", "Superfluous values", text


def _number_problems(expected: schema_pb2.Feature, stats: statistics_pb2.NumericStatistics) -> Iterator[Problem]:
    num_nan = max((histogram.num_nan for histogram in stats.histograms), default=0)
    if expected.float_domain.disallow_nan and num_nan:
        yield "FLOAT_TYPE_HAS_NAN", "Invalid values", f"{num_nan:g} values are NaN"
    if expected.float_domain.disallow_inf and float("inf") in (abs(stats.min), abs(stats.max)):
        yield "FLOAT_TYPE_HAS_INF", "Invalid values", "some values are infinite"


def _category_problems(schema: schema_pb2.Schema, expected: schema_pb2.Feature, found: _Feature) -> Iterator[Problem]:
    domain = string_domain(schema, expected)
    buckets = found.string_stats.rank_histogram.buckets
    if domain is not None:
        known = set(domain.value)
        strange = {bucket.label: bucket.sample_count for bucket in buckets if bucket.label not in known}
        total = max(common_statistics(found).tot_num_values, 1)
        mass = sum(strange.values()) / total
        least = (
            expected.distribution_constraints.min_domain_mass if expected.HasField("distribution_constraints") else 1
        )
        if mass > 1 - least:
            listed = ", ".join(f"{label} ({count / total:.2%})" for label, count in list(strange.items())[:5])
            yield "ENUM_TYPE_UNEXPECTED_STRING_VALUES", "Unexpected string values", f"not in the schema: {listed}"
    if expected.HasField("unique_constraints"):
        distinct, unique = expected.unique_constraints, found.string_stats.unique
        text = f"{unique} different values, expected {distinct.min} to {distinct.max}"
        if unique < distinct.min:
            yield "FEATURE_TYPE_LOW_UNIQUE", "Low number of unique values", text
        if distinct.max and unique > distinct.max:
            yield "FEATURE_TYPE_HIGH_UNIQUE", "High number of unique values", text


class Report:
    """Gathers anomalies."""

    def __init__(self, schema: schema_pb2.Schema, severities: Severities, allows_chance: bool = False) -> None:
        """Start without any; `allows_chance` adds to limits of distances what samples of their sizes differ by."""
        self._allows_chance = allows_chance
        self.anomalies = anomalies_pb2.Anomalies()
        self.anomalies.baseline.CopyFrom(schema)
        self._severities = severities

    def add(self, column: str, problems: Iterator[Problem] | list[Problem]) -> None:
        """Report problems of a column."""
        for problem in problems:
            if self._severities.get(problem[0]) != "ignore":
                info = self.anomalies.anomaly_info[column]
                if not info.reason:
                    info.path.step.append(column)
                self._add(info, problem)

    def add_to_dataset(self, problems: Iterator[Problem]) -> None:
        """Report problems of the data set as a whole."""
        for problem in problems:
            if self._severities.get(problem[0]) != "ignore":
                self._add(self.anomalies.dataset_anomaly_info, problem)

    def _add(self, info: anomalies_pb2.AnomalyInfo, problem: Problem) -> None:
        name, title, text = problem
        severity = _Info.WARNING if self._severities.get(name) == "warning" else _Info.ERROR
        info.reason.add(type=_Info.Type.Value(name), short_description=title, description=text)
        info.severity = max(info.severity, severity)
        info.short_description = title if len(info.reason) == 1 else "Multiple errors"
        info.description = "; ".join(reason.description for reason in info.reason)

    def measure(
        self,
        column: str,
        found: _Feature,
        other: _Feature,
        comparator: schema_pb2.FeatureComparator,
        drift: bool,
    ) -> None:
        """Measure the distances that a comparator limits, and report those above their limit."""
        against = "the span before" if drift else "serving"
        measured: list[tuple[int, float, float, Problem]] = []
        distance = infinity_norm(found, other) if comparator.HasField("infinity_norm") else None
        if distance is not None:
            limit = comparator.infinity_norm.threshold
            chance = infinity_by_chance(found, other) if self._allows_chance else 0.0
            text = f"L-infinity distance {distance[0]:.3f} to {against}, at most {limit:g} expected; {distance[1]}"
            limit += chance
            problem = ("COMPARATOR_L_INFTY_HIGH", "High L-infinity distance", text)
            measured.append((_Measurement.L_INFTY, distance[0], limit, problem))
        limits = comparator.jensen_shannon_divergence
        compared = comparator.HasField("jensen_shannon_divergence")
        divergence = jensen_shannon(found, other, limits.source.type) if compared else None
        if divergence is not None:
            chance = divergence_by_chance(found, other, limits.source.type) if self._allows_chance else 0.0
            text = f"Jensen-Shannon divergence {divergence:.3f} to {against}, at most {limits.threshold:g} expected"
            problem = ("COMPARATOR_JENSEN_SHANNON_DIVERGENCE_HIGH", "High Jensen-Shannon divergence", text)
            measured.append((_Measurement.JENSEN_SHANNON_DIVERGENCE, divergence, limits.threshold + chance, problem))
        if not measured:
            return
        info = next((item for item in self.anomalies.drift_skew_info if item.path.step[0] == column), None)
        if info is None:
            info = self.anomalies.drift_skew_info.add()
            info.path.step.append(column)
        measurements = info.drift_measurements if drift else info.skew_measurements
        for kind, value, limit, problem in measured:
            measurements.add(type=kind, value=value, threshold=limit)
            if value > limit:
                self.add(column, [problem])


def stopping(anomalies: anomalies_pb2.Anomalies) -> dict[str, str]:
    """The anomalies that stop a run: column, or `(all)`, to description."""
    return {name: info.description for name, info in _listed(anomalies) if info.severity == _Info.ERROR}


def warnings(anomalies: anomalies_pb2.Anomalies) -> list[str]:
    """The anomalies that only show in the report."""
    return [f"{name}: {info.description}" for name, info in _listed(anomalies) if info.severity != _Info.ERROR]


def _listed(anomalies: anomalies_pb2.Anomalies) -> list[tuple[str, anomalies_pb2.AnomalyInfo]]:
    whole = [("(all)", anomalies.dataset_anomaly_info)] if anomalies.dataset_anomaly_info.reason else []
    return whole + sorted(anomalies.anomaly_info.items())
