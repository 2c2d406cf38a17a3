"""The kfp components that end a release: publish a version, or keep what is served."""

from typing import NamedTuple

from components.common.step import step


@step
def publish(store_uri: str, pipeline: str, event_date: str, version: str) -> NamedTuple(
    "Outcome", [("published", str), ("promoted", bool)]
):
    """Copy the version into the registry and move the channel's pointer; returns the version's digest."""
    from components.publish import run

    publication = run.main(store_uri, pipeline, event_date, version)
    return (publication.version, publication.promoted)


@step
def keep_served() -> NamedTuple("Outcome", [("published", str), ("promoted", bool)]):
    """Publish nothing."""
    return ("", False)
