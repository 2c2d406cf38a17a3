"""The two pipelines: a batch that trains both arms on many days, and a day after day that scores, releases, trains on.

Both are made of plain functions that add steps. Nothing is nested for looks: on a cluster each nested pipeline costs
seconds of its own.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

from kfp import dsl
from kfp.dsl import PipelineTask

from components.common.ledger import ARMS
from components.common.releases import BATCH, DAILY
from components.evaluate.component import evaluate
from components.export.component import export
from components.gate.component import gate
from components.join.component import join_examples
from components.make_logs.component import make_logs
from components.publish.component import keep_served, publish
from components.report.component import report
from components.schedule.component import nothing_due, pick_days
from components.train.component import train_batch, train_days
from data_validation.component import validate_examples, validate_logs
from pipelines.resources import on_cluster


class Outcome(NamedTuple):
    """What a run returns."""

    event_date: str
    blessed: bool
    published: str
    promoted: bool
    reasons: list


class _Run:
    """One pipeline run: each method adds steps and returns the last one."""

    def __init__(self, pipeline: str, store_uri: str, config_uri: str) -> None:
        self.pipeline = pipeline
        self.addresses: dict[str, Any] = {"store_uri": store_uri, "config_uri": config_uri}

    def when_due(self, as_of: str, work: Callable[[PipelineTask], PipelineTask]) -> Outcome:
        """Pick the days, and if there are any, do the work, whose last step returns what the run did."""
        days = on_cluster(pick_days(**self.addresses, pipeline=self.pipeline, as_of=as_of))
        with dsl.If(days.outputs["due"] == True, name="due"):  # noqa: E712
            done = work(days)
        with dsl.Else(name="idle"):
            idle = on_cluster(nothing_due())
        either = {name: dsl.OneOf(done.outputs[name], idle.outputs[name]) for name in Outcome._fields[1:]}
        return Outcome(days.outputs["event_date"], **either)

    def prepare_examples(self, days: PipelineTask) -> PipelineTask:
        """From logs to examples that may be trained on."""
        span = {**self.addresses, "first_day": days.outputs["first_day"], "last_day": days.outputs["event_date"]}
        as_of, early_days = days.outputs["as_of"], days.outputs["early_days"]
        logs = on_cluster(make_logs(**span))
        clean = on_cluster(validate_logs(**span, as_of=as_of).after(logs))
        joined = join_examples(
            **span, as_of=as_of, evaluate_from=days.outputs["event_date"], early_days=early_days
        ).after(clean)
        return on_cluster(validate_examples(**span, early_days=early_days).after(on_cluster(joined)))

    def train(self, make: Callable[[str], PipelineTask]) -> list[PipelineTask]:
        """One step an arm, side by side."""
        return [on_cluster(make(arm), f"train {arm}") for arm in ARMS]

    def score(self, days: PipelineTask) -> PipelineTask:
        """Score all models on the day."""
        through = days.outputs["trained_through"]
        return on_cluster(evaluate(**self.addresses, **self._day(days), trained_through=through))

    def release_and_report(self, days: PipelineTask, scored: PipelineTask) -> PipelineTask:
        """Judge the candidate, export and publish what the verdict allows, report."""
        day = self._day(days)
        verdict = on_cluster(gate(**self.addresses, **day).after(scored))
        with dsl.If(verdict.outputs["publish"] == True, name="publish"):  # noqa: E712
            exported = on_cluster(export(**self.addresses, **day, blessing=verdict.outputs["blessing"]))
            done = on_cluster(publish(store_uri=self.addresses["store_uri"], **day, versions=exported.output))
        with dsl.Else(name="keep"):
            kept = on_cluster(keep_served())
        return on_cluster(report(**self.addresses, **day, published=dsl.OneOf(done.output, kept.output)))

    def _day(self, days: PipelineTask) -> dict[str, Any]:
        return {"pipeline": self.pipeline, "event_date": days.outputs["event_date"]}


@dsl.pipeline(name="batch-training", description="Train both arms on the batch days and publish the first model.")
def batch_training(store_uri: str, config_uri: str, as_of: str = "") -> Outcome:
    """Days 0..N-1 are trained on; day N is scored. The control is published under the first-model rule."""
    run = _Run(BATCH, store_uri, config_uri)

    def work(days: PipelineTask) -> PipelineTask:
        examples = run.prepare_examples(days)
        trained = run.train(
            lambda arm: train_batch(
                **run.addresses,
                arm=arm,
                first_day=days.outputs["first_day"],
                last_day=days.outputs["trained_through"],
            ).after(examples)
        )
        scored = run.score(days).after(*trained)
        return run.release_and_report(days, scored)

    return run.when_due(as_of, work)


@dsl.pipeline(name="daily-training", description="Score, gate and train the next day that no run has finished.")
def daily_training(store_uri: str, config_uri: str, as_of: str = "") -> Outcome:
    """One day per run; a missed night is caught up by the runs after it."""
    run = _Run(DAILY, store_uri, config_uri)

    def work(days: PipelineTask) -> PipelineTask:
        scored = run.score(days).after(run.prepare_examples(days))
        trained = run.train(
            lambda arm: train_days(
                **run.addresses,
                arm=arm,
                days=days.outputs["train_days"],
                early_days=days.outputs["early_days"],
            ).after(scored)
        )
        return run.release_and_report(days, scored).after(*trained)

    return run.when_due(as_of, work)
