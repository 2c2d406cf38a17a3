"""The kfp components that end a release: publish a version, or keep what is served."""

from components.common.step import step


@step
def publish(store_uri: str, pipeline: str, event_date: str, versions: list) -> str:
    """Copy versions to the registry, then move pointers; returns production's. `versions` orders it after export."""
    from components.common.progress import reported

    with reported("publish"):
        from components.publish import run

        return run.main(store_uri, pipeline, event_date).production


@step
def keep_served() -> str:
    """Publish nothing."""
    return ""
