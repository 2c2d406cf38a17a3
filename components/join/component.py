"""The kfp component that joins logs into examples."""

from components.common.step import step


@step
def join_examples(
    store_uri: str, config_uri: str, first_day: str, last_day: str, as_of: str, evaluate_from: str, early_days: list
) -> dict:
    """Make labelled examples of `first_day`..`last_day`, and early ones of other days; returns what was counted."""
    from components.common.progress import reported

    with reported("join-examples"):
        from components.join import run

        return run.main(store_uri, config_uri, (first_day, last_day), as_of, evaluate_from, early_days)
