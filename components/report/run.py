"""Writes the report of a run and closes it."""

from __future__ import annotations

from datetime import date

from components.common import storage
from components.common.config import Config, ResolvedConfig
from components.common.layout import Store
from components.common.progress import log_line
from components.common.records import write_record
from components.features.events import DatasetConfig
from components.report.facts import ReportFacts, collect
from components.report.page import render


class RunOutcome(Config):
    """What a finished run did.

    Attributes:
        event_date: The scored day.
        blessed: Whether the candidate passed the gate.
        published: The version that it published, or nothing.
        promoted: Whether the candidate became the production arm.
        reasons: Why, or why not.
    """

    event_date: date
    blessed: bool
    published: str
    promoted: bool
    reasons: tuple[str, ...]


def write_report(store_uri: str, dataset: DatasetConfig, pipeline: str, event_date: date) -> tuple[str, RunOutcome]:
    """Render the page of a run, write it as the run's and as the newest report, and mark the run as finished.

    The mark comes last: without it the next run of the pipeline takes the same day again.

    Returns:
        The page, and what the run did.
    """
    store = Store(store_uri)
    facts = collect(store, dataset, pipeline, event_date)
    page, outcome = render(facts), _outcome(facts)
    for uri in (store.report(f"{pipeline}-{event_date}"), store.newest_report()):
        storage.write_bytes(uri, page.encode())
    write_record(store.finished_run(pipeline, event_date), outcome)
    log_line("report", f"{event_date}: {store.newest_report()}; the {pipeline} run is finished")
    return page, outcome


def _outcome(facts: ReportFacts) -> RunOutcome:
    publication = facts.publication
    return RunOutcome(
        event_date=facts.event_date,
        blessed=facts.blessing.blessed,
        published=publication.production if publication else "",
        promoted=bool(publication and publication.promoted),
        reasons=(*facts.blessing.reasons, *facts.blessing.withheld),
    )


def main(store_uri: str, config_uri: str, pipeline: str, event_date: str) -> tuple[str, RunOutcome]:
    """`write_report` under a run's configuration."""
    dataset = ResolvedConfig.open(config_uri).section(DatasetConfig, "dataset")
    return write_report(store_uri, dataset, pipeline, date.fromisoformat(event_date))
