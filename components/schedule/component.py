"""The kfp components that start a run, and end one without work."""

from typing import NamedTuple

from components.common.step import step


@step
def pick_days(store_uri: str, config_uri: str, pipeline: str, as_of: str) -> NamedTuple(
    "Assignment",
    [
        ("due", bool),
        ("first_day", str),
        ("trained_through", str),
        ("event_date", str),
        ("as_of", str),
        ("train_days", list),
        ("early_days", list),
    ],
):
    """Choose the days of this run: the batch, or the next day that no run has finished."""
    from components.common.progress import reported

    with reported("pick-days"):
        from components.schedule import run

        chosen = run.main_pick(store_uri, config_uri, pipeline, as_of)
        days = (chosen.first_day, chosen.trained_through, chosen.event_date, chosen.as_of)
        return (chosen.due, *map(str, days), [*map(str, chosen.train_days)], [*map(str, chosen.early_days)])


@step
def nothing_due() -> NamedTuple(
    "Outcome", [("blessed", bool), ("published", str), ("promoted", bool), ("reasons", list)]
):
    """The outcome of a run without work."""
    return (False, "", False, ["nothing is due"])
