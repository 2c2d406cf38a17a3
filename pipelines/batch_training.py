"""Batch training: all batch days shuffled, both arms; the control is published under the first-model rule."""

from typing import NamedTuple

from kfp import dsl

from components.evaluate.component import evaluate
from components.report.component import report
from components.schedule.component import nothing_due, pick_days
from components.train.component import train_batch
from pipelines.examples import prepare_examples
from pipelines.release import release
from pipelines.resources import on_cluster


class Outcome(NamedTuple):
    """What a run returns."""

    event_date: str
    blessed: bool
    published: str
    promoted: bool
    reasons: list


@dsl.pipeline(name="batch-training", description="Train both arms on the batch days and publish the first model.")
def batch_training(
    store_uri: str,
    dataset: dict,
    source: dict,
    features: dict,
    validation: dict,
    join: dict,
    schedule: dict,
    control: dict,
    candidate: dict,
    evaluation: dict,
    gate: dict,
    export: dict,
    history_days: int,
    as_of: str = "",
) -> Outcome:
    """Days 0..N-1 are trained on; day N is scored."""
    days = on_cluster(pick_days(store_uri=store_uri, pipeline="batch", dataset=dataset, schedule=schedule, as_of=as_of))
    with dsl.If(days.outputs["due"] == True, name="due"):  # noqa: E712
        examples = prepare_examples(
            store_uri=store_uri,
            dataset=dataset,
            source=source,
            features=features,
            validation=validation,
            join=join,
            history_days=history_days,
            first_day=days.outputs["first_day"],
            last_day=days.outputs["event_date"],
            as_of=days.outputs["as_of"],
            evaluate_from=days.outputs["event_date"],
            early_days=days.outputs["early_days"],
        )
        trained = [
            on_cluster(
                train_batch(
                    store_uri=store_uri,
                    arm=arm,
                    dataset=dataset,
                    features=features,
                    train=recipe,
                    first_day=days.outputs["first_day"],
                    last_day=days.outputs["trained_through"],
                ).after(examples),
                f"train {arm}",
            )
            for arm, recipe in (("control", control), ("candidate", candidate))
        ]
        scored = on_cluster(
            evaluate(
                store_uri=store_uri,
                dataset=dataset,
                evaluation=evaluation,
                pipeline="batch",
                event_date=days.outputs["event_date"],
                trained_through=days.outputs["trained_through"],
            ).after(*trained)
        )
        released = release(
            store_uri=store_uri,
            pipeline="batch",
            event_date=days.outputs["event_date"],
            gate_config=gate,
            export_config=export,
        ).after(scored)
        on_cluster(
            report(
                store_uri=store_uri,
                pipeline="batch",
                dataset=dataset,
                gate=gate,
                event_date=days.outputs["event_date"],
                published=released.outputs["published"],
                promoted=released.outputs["promoted"],
            )
        )
    with dsl.Else(name="idle"):
        idle = on_cluster(nothing_due())
    return Outcome(
        days.outputs["event_date"],
        dsl.OneOf(released.outputs["blessed"], idle.outputs["blessed"]),
        dsl.OneOf(released.outputs["published"], idle.outputs["published"]),
        dsl.OneOf(released.outputs["promoted"], idle.outputs["promoted"]),
        dsl.OneOf(released.outputs["reasons"], idle.outputs["reasons"]),
    )
