"""Validates logs before the join and examples after it; what cannot be used stops the run."""

from __future__ import annotations

from datetime import date, timedelta

from components.common.config import ResolvedConfig
from components.common.days import day_range
from components.features.events import DatasetConfig
from components.features.feature_list import FeatureConfig
from data_validation.config import ValidationConfig
from data_validation.examples.validate import validate_examples, write_page
from data_validation.logs.validate import validate_logs


def main_logs(store_uri: str, config_uri: str, days: tuple[str, str], as_of: str) -> str:
    """`validate_logs` under a run's configuration, over all log days that the examples of `days` depend on."""
    config = ResolvedConfig.open(config_uri)
    dataset, features = config.section(DatasetConfig, "dataset"), config.section(FeatureConfig, "features")
    first, last, known_on = (date.fromisoformat(day) for day in (*days, as_of))
    read = [day for day in dataset.days_read(first, last, features.history_days) if day < known_on]
    return validate_logs(store_uri, dataset, config.section(ValidationConfig, "validation"), read, known_on)


def main_window(store_uri: str, config_uri: str, days: tuple[str, str]) -> str:
    """`validate_logs` under a run's configuration, over the log days from the first to the last of `days` only."""
    config = ResolvedConfig.open(config_uri)
    dataset, limits = config.section(DatasetConfig, "dataset"), config.section(ValidationConfig, "validation")
    first, last = (date.fromisoformat(day) for day in days)
    return validate_logs(store_uri, dataset, limits, day_range(first, last), last + timedelta(days=1))


def main_examples(
    store_uri: str, config_uri: str, days: tuple[str, str], early_days: list[str]
) -> tuple[dict[str, list[str]], str]:
    """`validate_examples` likewise; also returns the page of the statistics of the last of `days`."""
    config = ResolvedConfig.open(config_uri)
    dataset, features = config.section(DatasetConfig, "dataset"), config.section(FeatureConfig, "features")
    limits = config.section(ValidationConfig, "validation")
    first, last = (date.fromisoformat(day) for day in days)
    checked, early = dataset.open_days(first, last), [date.fromisoformat(day) for day in early_days]
    warnings = validate_examples(store_uri, dataset, features, limits, checked)
    if early:
        of_early = validate_examples(store_uri, dataset, features, limits, early, early=True)
        warnings |= {f"{day}, early": texts for day, texts in of_early.items()}
    return warnings, write_page(store_uri, dataset, checked[-1])
