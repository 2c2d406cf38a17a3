"""The kfp components that end a release: publish a version, or keep what is served."""

from typing import NamedTuple

from kfp import dsl


@dsl.component(install_kfp_package=False)
def publish(
    store_uri: str, pipeline: str, event_date: str, version: str
) -> NamedTuple("Outcome", [("published", str), ("promoted", bool)]):  # type: ignore[valid-type]
    """Copy the version into the registry and move the channel's pointer; returns the version's digest."""
    from components.publish import run

    publication = run.main(store_uri, pipeline, event_date, version)
    return (publication.version, publication.promoted)  # type: ignore[return-value]


@dsl.component(install_kfp_package=False)
def keep_served() -> NamedTuple("Outcome", [("published", str), ("promoted", bool)]):  # type: ignore[valid-type]
    """Publish nothing."""
    return ("", False)  # type: ignore[return-value]
