"""The steps as Kubeflow knows them: what fails, retries and scales together is one pod.

A pod costs half a minute beside its work. A step's body imports what it runs when it runs: the image that has it.
"""

from functools import partial
from typing import NamedTuple

from kfp import dsl
from kfp.dsl import HTML, Metrics, Output

# On a cluster the image comes from pipelines/resources.py; the local runner ignores it.
step = partial(dsl.component, base_image="python:3.11", install_kfp_package=False)


@step
def prepare_examples(
    store_uri: str,
    config_uri: str,
    run_id: str,
    pipeline: str,
    as_of: str,
    expectations: Output[HTML],
    statistics: Output[HTML],
) -> NamedTuple(
    "Assignment",
    [
        ("due", bool),
        ("first_day", str),
        ("trained_through", str),
        ("event_date", str),
        ("train_through", str),
    ],
):
    """Choose the days of this run; bring in their logs, validate and join them, and validate the examples."""
    from pipelines.work import prepare

    chosen, pages = prepare((store_uri, config_uri, run_id), pipeline, as_of)
    for artifact, page in zip((expectations, statistics), pages, strict=True):
        with open(artifact.path, "w") as stream:
            stream.write(page)
    days = (chosen.first_day, chosen.trained_through, chosen.event_date, chosen.train_through)
    return (chosen.due, *map(str, days))


@step
def train_batch(store_uri: str, config_uri: str, run_id: str, arm: str, first_day: str, last_day: str):
    """Train a new model on the days `first_day`..`last_day`, shuffled."""
    from pipelines.work import train_batch as train

    train((store_uri, config_uri, run_id), arm, first_day, last_day)


@step
def train_days(store_uri: str, config_uri: str, run_id: str, arm: str, event_date: str, through: str):
    """Train the arm day by day `through` a day; if it is new, on a batch of days until `event_date` first."""
    from pipelines.work import train_days as train

    train((store_uri, config_uri, run_id), arm, event_date, through)


@step
def collect_edges(store_uri: str, config_uri: str, run_id: str, as_of: str) -> str:
    """Choose the window that tables are pretrained on, bring in its logs, and collect their edges; its last day."""
    from pipelines.work import collect_edges as collect

    return collect((store_uri, config_uri, run_id), as_of)


@step
def pretrain_tables(store_uri: str, config_uri: str, run_id: str, through: str, page: Output[HTML]):
    """Pretrain tables on the edges of the log days until `through`."""
    from pipelines.work import pretrain_tables as pretrain

    html = pretrain((store_uri, config_uri, run_id), through)
    with open(page.path, "w") as stream:
        stream.write(html)


@step
def evaluate(
    store_uri: str, config_uri: str, run_id: str, pipeline: str, event_date: str, trained_through: str
) -> dict:
    """Append to the ledger how the models trained through one day do on a later one; returns served AUCs by arm."""
    from pipelines.work import evaluate as score

    return score((store_uri, config_uri, run_id), pipeline, event_date, trained_through)


@step
def release(
    store_uri: str,
    config_uri: str,
    run_id: str,
    pipeline: str,
    event_date: str,
    outcome: Output[Metrics],
    page: Output[HTML],
):
    """Judge the candidates, export and publish what the verdict allows, report, and mark the run as finished."""
    from pipelines.work import release as release_run

    closed, metrics, html = release_run((store_uri, config_uri, run_id), pipeline, event_date)
    for name, value in metrics.items():
        outcome.log_metric(name, value)
    outcome.metadata |= {"event_date": event_date, "published": closed.published, "reasons": "; ".join(closed.reasons)}
    with open(page.path, "w") as stream:
        stream.write(html)
