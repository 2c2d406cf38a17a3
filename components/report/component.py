"""The kfp component that writes the report and closes the run."""

from kfp.dsl import HTML, Output

from components.common.step import step


@step
def report(
    store_uri: str,
    pipeline: str,
    dataset: dict,
    gate: dict,
    event_date: str,
    published: str,
    promoted: bool,
    page: Output[HTML],
):
    """Write the run's page, then mark the run as finished; `published` and `promoted` order it after the release."""
    from components.common.release import MIN_GAIN_PERCENT
    from components.report import run

    threshold = gate.get("min_gain_percent", MIN_GAIN_PERCENT)
    with open(page.path, "w") as stream:
        stream.write(run.main(store_uri, pipeline, dataset, threshold, event_date))
