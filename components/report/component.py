"""The kfp component that writes the report and closes the run."""

from typing import NamedTuple

from kfp.dsl import HTML, Output

from components.common.step import step


@step
def report(
    store_uri: str, config_uri: str, pipeline: str, event_date: str, published: str, page: Output[HTML]
) -> NamedTuple("Outcome", [("blessed", bool), ("published", str), ("promoted", bool), ("reasons", list)]):
    """Mark the run as finished, and write its page; `published` orders it after the release."""
    from components.common.progress import reported

    with reported("report"):
        from components.report import run

        html, outcome = run.main(store_uri, config_uri, pipeline, event_date)
        with open(page.path, "w") as stream:
            stream.write(html)
        return (outcome.blessed, outcome.published, outcome.promoted, [*outcome.reasons])
