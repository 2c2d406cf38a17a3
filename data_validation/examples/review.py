"""Schemas that people review: inferred from a store's examples, compared with them, relaxed to fit them."""

from __future__ import annotations

import uuid
from datetime import date
from typing import TypeAlias

from tensorflow_metadata.proto.v0 import anomalies_pb2, schema_pb2, statistics_pb2

from components.common import storage
from components.common.errors import InputError
from components.common.layout import Store
from components.features.events import DatasetConfig
from components.features.examples import TRAINING, example_files
from components.features.feature_list import FeatureConfig
from data_validation.config import ValidationConfig
from data_validation.examples.drift import infinity_norm, jensen_shannon
from data_validation.examples.schema import contract_schema, update_schema
from data_validation.examples.statistics import read_statistics, write_statistics
from data_validation.examples.validate import NOT_DESCRIBED, categorical_columns, described_split, judge_day

# A limit is this many times the largest distance that was seen, so that ordinary days stay below it.
_HEADROOM = 2.0
_LEAST_LIMIT = 0.01
_EVERYTHING = "all"

Statistics: TypeAlias = statistics_pb2.DatasetFeatureStatisticsList


class ExampleHistory:
    """Statistics of a store's examples, day by day and together."""

    def __init__(
        self, store_uri: str, dataset: DatasetConfig, categorical: frozenset[str], beam_options: tuple[str, ...]
    ) -> None:
        """Compute them in one Beam pipeline.

        Raises:
            InputError: If the store has no examples.
        """
        self.store, self._dataset = Store(store_uri), dataset
        days = self.store.example_days(TRAINING)
        if not days:
            raise InputError(f"{store_uri}: no examples; make some with afterclick run")
        self.splits = {day: described_split(self.store, day) for day in days}
        files = {str(day): example_files(self.store, split, day) for day, split in self.splits.items()}
        files[_EVERYTHING] = [uri for uris in list(files.values()) for uri in uris]
        scratch = self.store.scratch(f"review-{uuid.uuid4().hex[:8]}")
        try:
            write_statistics(files, scratch, categorical, NOT_DESCRIBED, beam_options)
            self.by_day = {day: read_statistics(storage.join_uri(scratch, f"{day}.pb")) for day in days}
            self.together = read_statistics(storage.join_uri(scratch, f"{_EVERYTHING}.pb"))
        finally:
            storage.remove(scratch)

    def before(self, day: date) -> Statistics | None:
        """Statistics of the day before, if it was as much down-sampled."""
        earlier = self._dataset.open_day(day, -1)
        return self.by_day[earlier] if self.splits.get(earlier) == self.splits[day] else None


def infer_from_examples(
    store_uri: str, dataset: DatasetConfig, features: FeatureConfig, config: ValidationConfig
) -> schema_pb2.Schema:
    """A schema to review: what the feature list implies, with drift limits from how days really differ.

    Ranges that do not hold are widened.

    Raises:
        InputError: If the store has no examples, or they are not those of the feature list.
    """
    contract = contract_schema(features, config)
    history = ExampleHistory(store_uri, dataset, categorical_columns(contract), config.beam_options)
    columns = {feature.path.step[0] for feature in history.together.datasets[0].features}
    strange = sorted(columns ^ {feature.name for feature in contract.feature})
    if strange:
        raise InputError(
            f"{store_uri}: its examples and the configuration differ in {len(strange)} columns, such as {strange[:3]}; "
            "name the store's own configuration with --config"
        )
    schema = update_schema(contract, history.together)
    for feature in schema.feature:
        _set_limits(feature, history, (_LEAST_LIMIT, _LEAST_LIMIT), _HEADROOM)
    return schema


def anomalies_by_day(
    store_uri: str, dataset: DatasetConfig, schema: schema_pb2.Schema, config: ValidationConfig
) -> dict[date, anomalies_pb2.Anomalies]:
    """What every day of examples breaks of a schema; nothing is stopped."""
    history = ExampleHistory(store_uri, dataset, categorical_columns(schema), config.beam_options)
    return {
        day: judge_day(history.store, schema, config, day, statistics, history.before(day))
        for day, statistics in history.by_day.items()
    }


def relax_to_examples(
    store_uri: str, dataset: DatasetConfig, schema: schema_pb2.Schema, config: ValidationConfig
) -> schema_pb2.Schema:
    """A schema whose ranges, domains and drift limits are widened where some day of examples does not hold them."""
    history = ExampleHistory(store_uri, dataset, categorical_columns(schema), config.beam_options)
    updated = update_schema(schema, history.together)
    for feature in updated.feature:
        comparator = feature.drift_comparator
        limits = (comparator.infinity_norm.threshold, comparator.jensen_shannon_divergence.threshold)
        _set_limits(feature, history, limits, headroom=1.0)
    return updated


def _set_limits(
    feature: schema_pb2.Feature, history: ExampleHistory, at_least: tuple[float, float], headroom: float
) -> None:
    """Set a feature's L-infinity and Jensen-Shannon limits to the largest distance between days times `headroom`."""
    comparator = feature.drift_comparator
    pairs = []
    for day, statistics in history.by_day.items():
        previous = history.before(day)
        sides = [_feature(side, feature.name) for side in (statistics, previous) if side is not None]
        if len(sides) == 2 and sides[0] is not None and sides[1] is not None:
            pairs.append((sides[0], sides[1]))
    if comparator.HasField("infinity_norm"):
        norms = [distance[0] for found, other in pairs if (distance := infinity_norm(found, other))]
        comparator.infinity_norm.threshold = _limit(norms, at_least[0], headroom)
    if comparator.HasField("jensen_shannon_divergence"):
        source = comparator.jensen_shannon_divergence.source.type
        divergences = [jensen_shannon(found, other, source) or 0.0 for found, other in pairs]
        comparator.jensen_shannon_divergence.threshold = _limit(divergences, at_least[1], headroom)


def _limit(distances: list[float], at_least: float, headroom: float) -> float:
    # Rounded up: the largest distance itself must pass.
    largest = max(distances, default=0.0) * headroom
    return min(1.0, max(at_least, round(largest + 0.0005, 3)))


def _feature(statistics: Statistics, name: str) -> statistics_pb2.FeatureNameStatistics | None:
    return next((item for item in statistics.datasets[0].features if item.path.step[0] == name), None)
