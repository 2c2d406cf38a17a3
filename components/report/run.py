"""Writes the report of a run and closes it."""

from __future__ import annotations

from datetime import date
from typing import Any

from components.common import storage
from components.common.digests import canonical_json
from components.common.events import DatasetConfig
from components.common.layout import Store
from components.common.progress import log_line
from components.report.facts import ReportFacts, collect
from components.report.page import render


def write_report(store_uri: str, dataset: DatasetConfig, pipeline: str, event_date: date, threshold: float) -> str:
    """Render the page of a run, write it as the run's and as the newest report, and mark the run as finished.

    The mark comes last: without it the next run of the pipeline takes the same day again.

    Returns:
        The page.
    """
    store = Store(store_uri)
    facts = collect(store, dataset, pipeline, event_date)
    page = render(facts, threshold)
    for uri in (store.report(f"{pipeline}-{event_date}"), store.newest_report()):
        storage.write_bytes(uri, page.encode())
    storage.write_bytes(store.closed_run(pipeline, event_date), canonical_json(_outcome(facts)))
    log_line("report", f"{event_date}: {store.newest_report()}; the {pipeline} run is finished")
    return page


def _outcome(facts: ReportFacts) -> dict[str, Any]:
    return {
        "event_date": str(facts.event_date),
        "blessed": facts.blessing.blessed,
        "published": facts.publication.production if facts.publication else "",
        "promoted": bool(facts.publication and facts.publication.promoted),
    }


def main(store_uri: str, pipeline: str, dataset: dict[str, Any], threshold: float, event_date: str) -> str:
    """`write_report` from plain values."""
    contract = DatasetConfig.parse(dataset, "dataset")
    return write_report(store_uri, contract, pipeline, date.fromisoformat(event_date), threshold)
