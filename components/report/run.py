"""Writes the report of a run, which is finished whether its page can be drawn or not."""

from __future__ import annotations

import html
from datetime import date

from components.common import storage
from components.common.config import ResolvedConfig
from components.common.layout import Store
from components.common.page_script import script_beside, script_inside
from components.common.progress import log_line
from components.common.retention import RetentionConfig, prune
from components.common.runs import RunOutcome, close_run
from components.features.events import DatasetConfig
from components.report.facts import collect
from components.report.page import render


def write_report(
    store_uri: str, dataset: DatasetConfig, pipeline: str, event_date: date, num_days: int | None = None
) -> str:
    """Render the page of a run, and write it as the run's and as the newest report; returns the latter.

    The newest stands alone and can be sent to anybody; those of the runs share one script, and stay small.

    With `num_days` it shows as many days, so that it costs the same however old the store is.
    """
    store = Store(store_uri)
    beside = script_beside(store)
    page = render(collect(store, dataset, pipeline, event_date, num_days), beside)
    storage.write_bytes(store.report(f"{pipeline}-{event_date}"), page.encode())
    page = page.replace(beside, script_inside(), 1)
    storage.write_bytes(store.newest_report(), page.encode())
    log_line("report", f"{event_date}: {store.newest_report()}")
    return page


def main(store_uri: str, config_uri: str, pipeline: str, event_date: str) -> tuple[str, RunOutcome]:
    """Delete what is no longer kept, mark a run as finished, and write its report.

    What cannot be deleted or drawn must not have the day taken again: it is said instead.
    """
    config, store = ResolvedConfig.open(config_uri), Store(store_uri)
    dataset = config.section(DatasetConfig, "dataset")
    day, retention = date.fromisoformat(event_date), config.section(RetentionConfig, "retention")
    try:
        prune(store, retention)
    except (OSError, ValueError) as error:
        log_line(
            "report",
            f"{event_date}: ALARM: what retention no longer keeps is not deleted: {' '.join(str(error).split())}",
        )
    outcome = close_run(store, pipeline, day)
    log_line("report", f"{event_date}: the {pipeline} run is finished")
    try:
        return write_report(store_uri, dataset, pipeline, day, retention.report_days), outcome
    except Exception as error:
        reason = f"{type(error).__name__}: {' '.join(str(error).split())}"
        log_line("report", f"{event_date}: ALARM: there is no report: {reason}")
        return (
            f"<p>The {pipeline} run of {event_date} is finished, but has no report: {html.escape(reason)}</p>",
            outcome,
        )
