"""Finished runs: what each did, and the mark that the next run of its pipeline goes on from."""

from __future__ import annotations

from datetime import date

from components.common.config import Config
from components.common.layout import Store
from components.common.records import find_record, write_record
from components.common.releases import read_blessing, read_publication


class RunOutcome(Config):
    """What a finished run did.

    Attributes:
        event_date: The scored day.
        blessed: Whether a candidate passed the gate.
        published: The version that it published, or nothing.
        promoted: Whether another arm came to production.
        reasons: Why, or why not.
    """

    event_date: date
    blessed: bool
    published: str
    promoted: bool
    reasons: tuple[str, ...]


def read_outcome(store: Store, pipeline: str, event_date: date) -> RunOutcome | None:
    """What a finished run did; None if it is not finished."""
    return find_record(store.finished_run(pipeline, event_date), RunOutcome, "delete it, and run the day again")


def close_run(store: Store, pipeline: str, event_date: date) -> RunOutcome:
    """Mark a run as finished: the day is not taken again, and its ledger rows are final."""
    blessing, publication = read_blessing(store, pipeline, event_date), read_publication(store, pipeline, event_date)
    assert blessing is not None, "the gate runs before a run is finished"
    outcome = RunOutcome(
        event_date=event_date,
        blessed=blessing.blessed,
        published=publication.production if publication else "",
        promoted=bool(publication and publication.promoted),
        reasons=(*blessing.reasons, *blessing.withheld, *(publication.withheld if publication else ())),
    )
    write_record(store.finished_run(pipeline, event_date), outcome)
    return outcome
