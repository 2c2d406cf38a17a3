"""The kfp component that brings logs into the store."""

from components.common.step import step


@step
def make_logs(store_uri: str, config_uri: str, first_day: str, last_day: str) -> dict:
    """Write the logs that the examples of `first_day`..`last_day` depend on; returns rows written per log."""
    from components.common.progress import reported

    with reported("make-logs"):
        from components.make_logs import run

        return run.main(store_uri, config_uri, first_day, last_day)
