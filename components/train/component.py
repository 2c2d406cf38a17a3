"""The kfp components that train one arm."""

from components.common.step import step


@step
def train_batch(
    store_uri: str, arm: str, dataset: dict, features: dict, train: dict, first_day: str, last_day: str
) -> str:
    """Train a new model on the days `first_day`..`last_day`, shuffled; returns the checkpoint's digest."""
    from components.train import run

    return run.main_batch(store_uri, arm, dataset, features, train, (first_day, last_day))


@step
def train_days(
    store_uri: str, arm: str, dataset: dict, features: dict, train: dict, days: list, early_days: list
) -> str:
    """Train the arm's checkpoint of the day before on `days`, one by one; returns the newest checkpoint's digest."""
    from components.train import run

    return run.main_days(store_uri, arm, dataset, features, train, days, early_days)
