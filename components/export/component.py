"""The kfp component that exports a version."""

from kfp.dsl import Artifact, Input

from components.common.step import step


@step
def export(store_uri: str, config_uri: str, pipeline: str, event_date: str, blessing: Input[Artifact]) -> list:
    """Export what the gate released and check its parity with torch; returns the versions' digests."""
    from components.common.progress import reported

    with reported("export"):
        from components.export import run

        return run.main(store_uri, config_uri, pipeline, event_date)
