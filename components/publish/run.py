"""Publishes the exported versions of a run."""

from __future__ import annotations

from datetime import date

from components.common.errors import InputError
from components.common.layout import Store
from components.common.progress import log_line
from components.common.releases import Publication, read_blessing
from components.publish.registry import publish_releases


def main(store_uri: str, pipeline: str, event_date: str, versions: list[str]) -> Publication:
    """Publish the versions that the blessing of a run releases.

    Raises:
        InputError: If there is no blessing, or it is not for these versions.
    """
    store, day = Store(store_uri), date.fromisoformat(event_date)
    blessing = read_blessing(store, pipeline, day)
    if blessing is None:
        raise InputError(f"{store.blessing(pipeline, day)}: no blessing; nothing is published without one")
    publication = publish_releases(store, blessing, versions)
    for published in publication.versions:
        log_line(
            "publish", f"{day}: {published.channel} is {published.version[:12]} ({published.action} of {published.arm})"
        )
    return publication
