"""Expectations of raw logs, run by Great Expectations."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pandas as pd

from components.features.events import ACTION_TYPES, ACTIONS, IMPRESSIONS, SOURCES, DatasetConfig
from data_validation.config import ValidationConfig

# Suites that look at a log's days, rather than at its rows.
DAYS_OF = "days of "


@dataclass(frozen=True)
class Expectation:
    """What Great Expectations found for one expectation.

    Attributes:
        suite: What it was asked of: `impressions`, `actions` or `days`.
        name: The expectation's type, e.g. `expect_column_values_to_be_unique`.
        column: Its column, empty for a whole table.
        met: Whether it holds.
        observed: What was seen, in words.
    """

    suite: str
    name: str
    column: str
    met: bool
    observed: str


def check_logs(
    samples: dict[str, pd.DataFrame], days: pd.DataFrame, dataset: DatasetConfig, config: ValidationConfig
) -> tuple[list[Expectation], str]:
    """Check samples of the delivered rows and the volumes of every day.

    Args:
        samples: Rows of each log, as delivered.
        days: One row per log and day: `log_name`, `event_date`, `rows`, `quarantined_share`.
        dataset: The log contract.
        config: The limits.

    Returns:
        What was found, and Great Expectations' Data Docs as one HTML page that opens offline.
    """
    import great_expectations as gx
    import great_expectations.expectations as gxe
    from great_expectations.data_context.types.base import ProgressBarsConfig

    from data_validation.logs.data_docs import data_docs_page

    mostly = 1.0 - config.max_quarantined_share
    suites: dict[str, tuple[pd.DataFrame, list[Any]]] = {}
    for name, identifier in ((IMPRESSIONS, "impression_id"), (ACTIONS, "action_id")):
        required = [column.name for column in dataset.columns(name) if column.required]
        expectations: list[Any] = [
            gxe.ExpectColumnValuesToNotBeNull(column=column, mostly=mostly) for column in required
        ]
        expectations.append(gxe.ExpectColumnValuesToBeUnique(column=identifier, mostly=mostly))
        suites[name] = (samples[name], expectations)
    suites[ACTIONS][1].extend(
        [
            gxe.ExpectColumnValuesToBeInSet(column="action_type", value_set=list(ACTION_TYPES), mostly=mostly),
            gxe.ExpectColumnValuesToBeInSet(column="source", value_set=list(SOURCES), mostly=mostly),
        ]
    )
    for name, least in ((IMPRESSIONS, config.min_impressions_per_day), (ACTIONS, config.min_actions_per_day)):
        suites[DAYS_OF + name] = (
            days[days["log_name"] == name],
            [
                gxe.ExpectColumnValuesToBeBetween(column="rows", min_value=least),
                gxe.ExpectColumnValuesToBeBetween(
                    column="quarantined_share", min_value=0, max_value=config.max_quarantined_share
                ),
            ],
        )
    context = gx.get_context(mode="ephemeral")
    context.variables.progress_bars = ProgressBarsConfig(globally=False)
    source = context.data_sources.add_pandas("logs")
    expectations_met, results = [], {}
    for name, (frame, expectations) in suites.items():
        batch = source.add_dataframe_asset(name).add_batch_definition_whole_dataframe(name)
        suite = context.suites.add(gx.ExpectationSuite(name=name, expectations=expectations))
        definition = gx.ValidationDefinition(name=name, data=batch, suite=suite)
        result = context.validation_definitions.add(definition).run(
            batch_parameters={"dataframe": frame}, result_format="SUMMARY"
        )
        expectations_met += [_summarise(name, item, frame) for item in result.results]
        results[name] = result
    return expectations_met, data_docs_page(results)


def _summarise(suite: str, item: Any, frame: pd.DataFrame) -> Expectation:
    settings = item.expectation_config
    column = settings.kwargs.get("column", "")
    result = item.result or {}
    if item.exception_info and item.exception_info.get("raised_exception"):
        observed = str(item.exception_info.get("exception_message"))
    else:
        observed = f"{result.get('unexpected_count', 0)} unexpected of {result.get('element_count', len(frame))}"
        worst = [str(value) for value in result.get("partial_unexpected_list", [])[:3]]
        observed += f": {', '.join(worst)}" if worst else ""
        if settings.type == "expect_column_values_to_be_unique":
            observed += (
                f"; ids must not come again: make them of what tells rows apart, {column}: "
                f"{{sql: \"concat_ws('-', a, {column})\"}}, in both logs alike"
            )
    if "event_date" in frame.columns and not item.success:
        bad = frame[
            ~frame[column].between(settings.kwargs["min_value"], settings.kwargs.get("max_value", float("inf")))
        ]
        observed += f" on {', '.join(map(str, bad['event_date'][:3]))}"
    return Expectation(suite, settings.type, column, bool(item.success), observed)
