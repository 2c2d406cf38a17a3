"""Whether a feature list fits the logs."""

from __future__ import annotations

from components.features.events import DatasetConfig
from components.features.feature_list import CLOCK_FEATURES, FeatureConfig


def check_features(features: FeatureConfig, dataset: DatasetConfig) -> None:
    """Check that every feature has a column.

    Raises:
        ValueError: Naming the feature without one.
    """
    identifiers = {"user_id", "item_id", *dataset.context_identifiers, *CLOCK_FEATURES}
    for feature in features.categorical:
        is_made = feature.identifiers != (feature.name,)
        for name in feature.identifiers:
            if name not in identifiers:
                of = f"{feature.name}.crossed: " if is_made else ""
                raise ValueError(f"features.categorical: {of}{name!r} is not one of {sorted(identifiers)}")
        if is_made and feature.name in {*identifiers, *dataset.context_numbers}:
            raise ValueError(f"features.categorical: {feature.name!r} is a column of the logs; name it otherwise")
    for where in ("sequence", "counts", "engagement"):
        for entity in getattr(features, where).entities:
            if entity not in dataset.entities:
                raise ValueError(
                    f"features.{where}.entities: {entity!r} is not among what both logs have, "
                    f"{list(dataset.entities)}; add it to dataset.action_entities if actions carry it, or take it "
                    "out here"
                )
    for feature in features.lists:
        if feature.name not in dataset.context_lists:
            raise ValueError(f"features.lists: {feature.name!r} is not among the data set's context_lists")
        if feature.weights not in (None, dataset.context_list_weights.get(feature.name)):
            raise ValueError(
                f"features.lists: {feature.name}.weights: {feature.weights!r} is not what the data set's "
                "context_list_weights has for it"
            )
    used = [("numbers", number.name) for number in features.number_features]
    used += [
        (f"categorical: {feature.name}.quantiles.number", feature.quantiles.number)
        for feature in features.categorical
        if feature.quantiles
    ]
    for where, name in used:
        if name not in dataset.context_numbers:
            raise ValueError(f"features.{where}: {name!r} is not among the data set's context_numbers")
