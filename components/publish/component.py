"""The kfp components that end a release: publish a version, or keep what is served."""

from typing import NamedTuple

from components.common.step import step


@step
def publish(store_uri: str, pipeline: str, event_date: str, versions: list) -> NamedTuple(
    "Outcome", [("published", str), ("promoted", bool)]
):
    """Copy the versions into the registry and move their channels' pointers; returns production's digest."""
    from components.publish import run

    publication = run.main(store_uri, pipeline, event_date, versions)
    return (publication.production, publication.promoted)


@step
def keep_served() -> NamedTuple("Outcome", [("published", str), ("promoted", bool)]):
    """Publish nothing."""
    return ("", False)
