"""The kfp components that end a release: publish a version, or keep what is served."""

from components.common.step import step


@step
def publish(store_uri: str, pipeline: str, event_date: str, versions: list) -> str:
    """Copy the versions into the registry and move their channels' pointers; returns production's digest."""
    from components.common.progress import reported

    with reported("publish"):
        from components.publish import run

        return run.main(store_uri, pipeline, event_date, versions).production


@step
def keep_served() -> str:
    """Publish nothing."""
    return ""
