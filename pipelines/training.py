"""The two pipelines: a batch that trains all arms on many days, and a day after day that scores, releases, trains on.

Each is a chain of few steps. Nothing is nested but the condition that something is due: on a cluster a nested pipeline
costs a pod of its own.
"""

from collections.abc import Callable, Sequence
from typing import Any

from kfp import dsl
from kfp.dsl import PipelineTask
from kfp.dsl.graph_component import GraphComponent

from components.common.releases import BATCH, DAILY
from pipelines.cluster import DEFAULT_CLUSTER, ClusterConfig
from pipelines.pods import on_cluster, run_limits
from pipelines.steps import evaluate, prepare_examples, release, train_batch, train_days

# Those of the shipped configurations.
SHIPPED_ARMS = ("baseline", "sparse_optimizer")


class _Run:
    """One pipeline run: each method adds steps and returns the last one."""

    def __init__(self, pipeline: str, cluster: ClusterConfig, addresses: dict[str, Any]) -> None:
        self.pipeline, self._cluster = pipeline, cluster
        self.addresses = {**addresses, "run_id": dsl.PIPELINE_JOB_ID_PLACEHOLDER}

    def add(self, task: PipelineTask, display_name: str = "") -> PipelineTask:
        """Give a task its resources."""
        return on_cluster(task, self._cluster, display_name)

    def when_due(self, as_of: str, work: Callable[[PipelineTask], None]) -> None:
        """Prepare the examples of the days that are due, and if there are any, do the work."""
        prepared = self.add(prepare_examples(**self.addresses, pipeline=self.pipeline, as_of=as_of))
        with dsl.If(prepared.outputs["due"] == True, name="due"):  # noqa: E712
            work(prepared)

    def score(self, prepared: PipelineTask) -> PipelineTask:
        """Score all models on the day."""
        through = prepared.outputs["trained_through"]
        return self.add(evaluate(**self.addresses, **self._day(prepared), trained_through=through))

    def release(self, prepared: PipelineTask) -> PipelineTask:
        """Judge the candidates, export and publish what the verdict allows, report."""
        return self.add(release(**self.addresses, **self._day(prepared)))

    def _day(self, prepared: PipelineTask) -> dict[str, Any]:
        return {"pipeline": self.pipeline, "event_date": prepared.outputs["event_date"]}


def batch_training(cluster: ClusterConfig = DEFAULT_CLUSTER, arms: Sequence[str] = SHIPPED_ARMS) -> GraphComponent:
    """Days 0..N-1 are trained on; day N is scored. The first model is published under its own rule."""

    @dsl.pipeline(
        name="batch-training",
        description="Train all arms on the batch days and publish the first model.",
        pipeline_config=run_limits(cluster),
    )
    def batch_training(store_uri: str, config_uri: str, as_of: str = "") -> None:
        run = _Run(BATCH, cluster, {"store_uri": store_uri, "config_uri": config_uri})

        def work(days: PipelineTask) -> None:
            span = {"first_day": days.outputs["first_day"], "last_day": days.outputs["trained_through"]}
            trained = [run.add(train_batch(**run.addresses, arm=arm, **span), f"train {arm}") for arm in arms]
            run.release(days).after(run.score(days).after(*trained))

        run.when_due(as_of, work)

    return batch_training


def daily_training(cluster: ClusterConfig = DEFAULT_CLUSTER, arms: Sequence[str] = SHIPPED_ARMS) -> GraphComponent:
    """One day per run; a missed night is caught up by the runs after it."""

    @dsl.pipeline(
        name="daily-training",
        description="Score, gate and train the next day that no run has finished.",
        pipeline_config=run_limits(cluster),
    )
    def daily_training(store_uri: str, config_uri: str, as_of: str = "") -> None:
        run = _Run(DAILY, cluster, {"store_uri": store_uri, "config_uri": config_uri})

        def work(days: PipelineTask) -> None:
            scored = run.score(days)
            span = {"event_date": days.outputs["event_date"], "through": days.outputs["train_through"]}
            trained = [run.add(train_days(**run.addresses, arm=arm, **span), f"train {arm}") for arm in arms]
            run.release(days).after(*[task.after(scored) for task in trained])

        run.when_due(as_of, work)

    return daily_training
