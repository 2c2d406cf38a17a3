"""The kfp component that exports a version."""

from kfp.dsl import Artifact, Input

from components.common.step import step


@step
def export(store_uri: str, export: dict, pipeline: str, event_date: str, blessing: Input[Artifact]) -> list:
    """Export what the gate released and check its parity with torch; returns the versions' digests."""
    from components.export import run

    return run.main(store_uri, export, pipeline, event_date)
