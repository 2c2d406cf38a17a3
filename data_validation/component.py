"""The kfp components that validate logs and examples."""

from kfp.dsl import HTML, Output

from components.common.step import step


@step
def validate_logs(
    store_uri: str, config_uri: str, first_day: str, last_day: str, as_of: str, expectations: Output[HTML]
):
    """Clean and check the logs that the examples of `first_day`..`last_day` depend on; fails when they are unfit."""
    from components.common.progress import reported

    with reported("validate-logs"):
        from data_validation import run

        page = run.main_logs(store_uri, config_uri, (first_day, last_day), as_of)
        with open(expectations.path, "w") as stream:
            stream.write(page)


@step
def validate_examples(
    store_uri: str, config_uri: str, first_day: str, last_day: str, early_days: list, statistics: Output[HTML]
) -> dict:
    """Check the examples of `first_day`..`last_day` and early ones against their schema; returns warnings by day."""
    from components.common.progress import reported

    with reported("validate-examples"):
        from data_validation import run

        warnings, page = run.main_examples(store_uri, config_uri, (first_day, last_day), early_days)
        with open(statistics.path, "w") as stream:
            stream.write(page)
        return warnings
