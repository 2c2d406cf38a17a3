"""The kfp components that train one arm."""

from components.common.step import step


@step
def train_batch(store_uri: str, config_uri: str, arm: str, first_day: str, last_day: str) -> str:
    """Train a new model on the days `first_day`..`last_day`, shuffled; returns the checkpoint's digest."""
    from components.common.progress import reported

    with reported("train-batch"):
        from components.train import run

        return run.main_batch(store_uri, config_uri, arm, first_day, last_day)


@step
def train_days(store_uri: str, config_uri: str, arm: str, days: list, early_days: list) -> str:
    """Train the arm's checkpoint of the day before on `days`, one by one; returns the newest checkpoint's digest."""
    from components.common.progress import reported

    with reported("train-days"):
        from components.train import run

        return run.main_days(store_uri, config_uri, arm, days, early_days)
