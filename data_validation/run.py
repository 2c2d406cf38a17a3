"""Validates logs before the join and examples after it; what cannot be used stops the run."""

from __future__ import annotations

from datetime import date
from typing import Any

from components.common.events import DatasetConfig
from components.common.features import FeatureConfig
from data_validation.config import ValidationConfig
from data_validation.examples import validate_examples, write_page
from data_validation.logs import validate_logs


def main_logs(
    store_uri: str,
    dataset: dict[str, Any],
    validation: dict[str, Any],
    days: tuple[str, str],
    as_of: str,
    history_days: int,
) -> str:
    """`validate_logs` from plain values, over all log days that the examples of `days` depend on."""
    contract, known_on = DatasetConfig.parse(dataset, "dataset"), date.fromisoformat(as_of)
    first, last = (date.fromisoformat(day) for day in days)
    read = [day for day in contract.days_read(first, last, history_days) if day < known_on]
    return validate_logs(store_uri, contract, ValidationConfig.parse(validation, "validation"), read, known_on)


def main_examples(
    store_uri: str,
    dataset: dict[str, Any],
    features: dict[str, Any],
    validation: dict[str, Any],
    days: tuple[str, str],
    early_days: list[str],
) -> tuple[dict[str, list[str]], str]:
    """`validate_examples` from plain values; also returns the page of the statistics of the last of `days`."""
    first, last = (date.fromisoformat(day) for day in days)
    contract, feature_list = DatasetConfig.parse(dataset, "dataset"), FeatureConfig.parse(features, "features")
    limits = ValidationConfig.parse(validation, "validation")
    checked, early = contract.open_days(first, last), [date.fromisoformat(day) for day in early_days]
    warnings = validate_examples(store_uri, contract, feature_list, limits, checked)
    if early:
        found = validate_examples(store_uri, contract, feature_list, limits, early, early=True)
        warnings |= {f"{day}, early": texts for day, texts in found.items()}
    return warnings, write_page(store_uri, contract, checked[-1])
