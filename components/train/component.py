"""The kfp components that train one arm."""

from components.common.step import step


@step
def train_batch(
    store_uri: str, arm: str, dataset: dict, features: dict, train: dict, first_day: str, last_day: str
) -> str:
    """Train a new model on the days `first_day`..`last_day`, shuffled; returns the checkpoint's digest."""
    from components.train import run

    return run.main(store_uri, arm, dataset, features, train, (first_day, last_day), warm_start=False)


@step
def train_day(store_uri: str, arm: str, dataset: dict, features: dict, train: dict, event_date: str) -> str:
    """Train the arm's latest checkpoint one more day; returns the new checkpoint's digest."""
    from components.train import run

    return run.main(store_uri, arm, dataset, features, train, (event_date, event_date), warm_start=True)
