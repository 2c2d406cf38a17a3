"""Daily training: score the next day with what is known, release, then train both arms on."""

from kfp import dsl

from components.evaluate.component import evaluate
from components.report.component import report
from components.schedule.component import nothing_due, pick_days
from components.train.component import train_days
from pipelines.batch_training import Outcome
from pipelines.examples import prepare_examples
from pipelines.release import release
from pipelines.resources import on_cluster


@dsl.pipeline(name="daily-training", description="Score, gate and train the next day that no run has finished.")
def daily_training(
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
    """One day per run; a missed night is caught up by the runs after it."""
    days = on_cluster(pick_days(store_uri=store_uri, pipeline="daily", dataset=dataset, schedule=schedule, as_of=as_of))
    with dsl.If(days.outputs["due"] == True, name="due"):  # noqa: E712
        examples = prepare_examples(
            store_uri=store_uri,
            dataset=dataset,
            source=source,
            features=features,
            validation=validation,
            join=join,
            history_days=history_days,
            first_day=days.outputs["event_date"],
            last_day=days.outputs["event_date"],
            as_of=days.outputs["as_of"],
            evaluate_from=days.outputs["event_date"],
            early_days=days.outputs["early_days"],
        )
        scored = on_cluster(
            evaluate(
                store_uri=store_uri,
                dataset=dataset,
                evaluation=evaluation,
                pipeline="daily",
                event_date=days.outputs["event_date"],
                trained_through=days.outputs["trained_through"],
            ).after(examples)
        )
        released = release(
            store_uri=store_uri,
            pipeline="daily",
            event_date=days.outputs["event_date"],
            gate_config=gate,
            export_config=export,
        ).after(scored)
        trained = [
            on_cluster(
                train_days(
                    store_uri=store_uri,
                    arm=arm,
                    dataset=dataset,
                    features=features,
                    train=recipe,
                    days=days.outputs["train_days"],
                    early_days=days.outputs["early_days"],
                ).after(scored),
                f"train {arm}",
            )
            for arm, recipe in (("control", control), ("candidate", candidate))
        ]
        on_cluster(
            report(
                store_uri=store_uri,
                pipeline="daily",
                dataset=dataset,
                gate=gate,
                event_date=days.outputs["event_date"],
                published=released.outputs["published"],
                promoted=released.outputs["promoted"],
            ).after(*trained)
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
