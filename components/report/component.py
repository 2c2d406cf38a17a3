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
    from components.report import run

    with open(page.path, "w") as stream:
        stream.write(run.main(store_uri, pipeline, dataset, gate.get("min_gain_percent", 0.10), event_date))
