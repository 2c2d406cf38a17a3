"""The shared start of both pipelines: from logs to examples that may be trained on."""

from kfp import dsl

from components.join.component import join_examples
from components.make_logs.component import make_logs
from data_validation.component import validate_examples, validate_logs
from pipelines.resources import on_cluster


@dsl.pipeline(name="prepare-examples", description="Logs in, validated and labelled examples out.")
def prepare_examples(
    store_uri: str,
    dataset: dict,
    source: dict,
    features: dict,
    validation: dict,
    join: dict,
    history_days: int,
    first_day: str,
    last_day: str,
    as_of: str,
    evaluate_from: str,
    early_days: list,
) -> dict:
    """Make logs, validate, join, validate."""
    logs = on_cluster(
        make_logs(
            store_uri=store_uri,
            dataset=dataset,
            source=source,
            first_day=first_day,
            last_day=last_day,
            history_days=history_days,
        )
    )
    clean = on_cluster(
        validate_logs(
            store_uri=store_uri,
            dataset=dataset,
            validation=validation,
            first_day=first_day,
            last_day=last_day,
            as_of=as_of,
            history_days=history_days,
        ).after(logs)
    )
    joined = on_cluster(
        join_examples(
            store_uri=store_uri,
            dataset=dataset,
            features=features,
            join=join,
            first_day=first_day,
            last_day=last_day,
            as_of=as_of,
            evaluate_from=evaluate_from,
            early_days=early_days,
        ).after(clean)
    )
    checked = on_cluster(
        validate_examples(
            store_uri=store_uri,
            dataset=dataset,
            features=features,
            validation=validation,
            first_day=first_day,
            last_day=last_day,
            early_days=early_days,
        ).after(joined)
    )
    return checked.outputs["Output"]
