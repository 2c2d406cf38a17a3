"""Publishes the exported versions of a run."""

from __future__ import annotations

from datetime import date

from components.common.errors import InputError
from components.common.layout import Store
from components.common.progress import log_line
from components.common.releases import ALARM_DAYS, Publication, days_withheld, read_blessing, read_export
from components.publish.registry import publish_releases


def main(store_uri: str, pipeline: str, event_date: str) -> Publication:
    """Publish the versions that the blessing of a run releases, but for those that failed their limits.

    Raises:
        InputError: If there is no blessing, or nothing was exported for it.
    """
    store, day = Store(store_uri), date.fromisoformat(event_date)
    blessing, export = read_blessing(store, pipeline, day), read_export(store, pipeline, day)
    if blessing is None:
        raise InputError(f"{store.blessing(pipeline, day)}: no blessing; nothing is published without one")
    if export is None:
        raise InputError(f"{store.export(pipeline, day)}: nothing was exported; export it first")
    publication = publish_releases(store, blessing, export)
    for published in publication.versions:
        log_line(
            "publish", f"{day}: {published.channel} is {published.version[:12]} ({published.action} of {published.arm})"
        )
    in_a_row = days_withheld(store, day)
    if in_a_row >= ALARM_DAYS:
        log_line("publish", f"{day}: ALARM: a version was withheld on {in_a_row} days in a row; see the report")
    return publication
