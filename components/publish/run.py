"""Publishes the exported version of a day."""

from __future__ import annotations

from datetime import date

from components.common.errors import InputError
from components.common.layout import Store
from components.common.manifests import read_manifest
from components.common.progress import log_line
from components.common.release import Publication, read_blessing
from components.common.servable import VERSION_KIND
from components.publish.registry import publish_version


def main(store_uri: str, pipeline: str, event_date: str, version: str) -> Publication:
    """Publish the version that the blessing of a run allows.

    Raises:
        InputError: If there is no blessing, or it is not for this version.
    """
    store, day = Store(store_uri), date.fromisoformat(event_date)
    blessing = read_blessing(store, pipeline, day)
    if blessing is None:
        raise InputError(f"{store.blessing(pipeline, day)}: no blessing; nothing is published without one")
    exported_uri = store.staged_version(blessing.checkpoint_digest)
    exported = read_manifest(exported_uri, VERSION_KIND)
    publication = publish_version(store, blessing, version, exported, exported_uri)
    log_line("publish", f"{day}: {publication.channel} is {version[:12]} ({publication.action} of {blessing.arm})")
    return publication
