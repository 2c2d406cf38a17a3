"""The kfp component that brings logs into the store."""

from components.common.step import step


@step
def make_logs(store_uri: str, dataset: dict, source: dict, first_day: str, last_day: str, history_days: int) -> dict:
    """Write the logs that the examples of `first_day`..`last_day` depend on; returns rows written per log."""
    from components.make_logs import run

    return run.main(store_uri, dataset, source, first_day, last_day, history_days)
