"""The kfp components that validate logs and examples."""

from kfp.dsl import HTML, Output

from components.common.step import step


@step
def validate_logs(
    store_uri: str,
    dataset: dict,
    validation: dict,
    first_day: str,
    last_day: str,
    as_of: str,
    history_days: int,
    expectations: Output[HTML],
):
    """Clean and check the logs that the examples of `first_day`..`last_day` depend on; fails when they are unfit."""
    from data_validation import run

    page = run.main_logs(store_uri, dataset, validation, (first_day, last_day), as_of, history_days)
    with open(expectations.path, "w") as stream:
        stream.write(page)


@step
def validate_examples(
    store_uri: str,
    dataset: dict,
    features: dict,
    validation: dict,
    first_day: str,
    last_day: str,
    early_days: list,
    statistics: Output[HTML],
) -> dict:
    """Check the examples of `first_day`..`last_day` and early ones against their schema; returns warnings by day."""
    from data_validation import run

    days = (first_day, last_day)
    warnings, page = run.main_examples(store_uri, dataset, features, validation, days, early_days)
    with open(statistics.path, "w") as stream:
        stream.write(page)
    return warnings
