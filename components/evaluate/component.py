"""The kfp component that scores a day."""

from components.common.step import step


@step
def evaluate(store_uri: str, config_uri: str, pipeline: str, event_date: str, trained_through: str) -> dict:
    """Append to the ledger how the models trained through one day do on a later one; returns served AUCs by arm."""
    from components.common.progress import reported

    with reported("evaluate"):
        from components.evaluate import run

        return run.main(store_uri, config_uri, pipeline, event_date, trained_through)
