"""Scores the arms, the served version and the yardstick on one unseen day."""

from __future__ import annotations

from datetime import date

from components.common.arms import ArmList
from components.common.config import ResolvedConfig
from components.common.errors import InputError
from components.common.layout import Store
from components.common.ledger import find_row, is_final, write_row
from components.common.progress import Progress, log_line
from components.common.releases import read_pointer, read_publication
from components.evaluate.config import EvaluationConfig
from components.evaluate.scorer import Scorer
from components.features.events import DatasetConfig


def evaluate_day(
    store_uri: str,
    dataset: DatasetConfig,
    config: EvaluationConfig,
    arms: ArmList,
    pipeline: str,
    event_date: date,
    trained_through: date,
) -> dict[str, dict[str, float | None]]:
    """Score every model on a day that it has not seen, and keep the scores in the ledger.

    The arms are taken as they were after `trained_through`; those that failed before, are new or are behind are left
    out. A record stands while it was made from the same inputs; made from others, it is written anew until its run is
    finished, and stands from then on. The served version is scored by its own files, until this run has published:
    after that, it would be judged against itself.

    Returns:
        AUC by arm and served objective.

    Raises:
        InputError: If a checkpoint is absent, the version in production is damaged, or `trained_through` is not before
            the day.
    """
    if trained_through >= event_date:
        raise InputError(f"models trained through {trained_through} have seen {event_date}; score a later day")
    store = Store(store_uri)
    scorer = Scorer(store, dataset, config, event_date, trained_through)
    pointer = None if read_publication(store, pipeline, event_date) else read_pointer(store)
    models = scorer.models(arms, pointer)
    final, rows = is_final(store, pipeline, event_date), []
    progress = Progress(f"evaluate {event_date}", len(models))
    for done, model in enumerate(models, start=1):
        row = find_row(store, event_date, model.name)
        if row is None or not (final or row.inputs_digest == scorer.inputs_digest(model)):
            row = scorer.score(model)
            write_row(store, row)
        rows.append(row)
        progress.update(done, model.name)
    aucs = {row.arm: {name: row.scores[name].auc for name in config.served if name in row.scores} for row in rows}
    for arm, scores in aucs.items():
        shown = ", ".join(f"{name} {auc:.4f}" if auc is not None else f"{name} -" for name, auc in scores.items())
        log_line("evaluate", f"{event_date}: {arm}: AUC {shown}")
    for row in rows:
        for table, share in row.unknown_ids.items():
            if share > config.max_unknown_ids:
                log_line(
                    "evaluate",
                    f"ALARM: {event_date}: {row.arm}: {share:.0%} of the rows have no {table} of their own "
                    f"(evaluation.max_unknown_ids = {config.max_unknown_ids:g}); raise the table's capacity, deliver "
                    "more vectors, or see whether the logs name it in another way",
                )
    return aucs


def main(
    store_uri: str, config_uri: str, pipeline: str, event_date: str, trained_through: str
) -> dict[str, dict[str, float | None]]:
    """`evaluate_day` under a run's configuration."""
    config = ResolvedConfig.open(config_uri)
    return evaluate_day(
        store_uri,
        config.section(DatasetConfig, "dataset"),
        config.section(EvaluationConfig, "evaluation"),
        ArmList.of(Store(store_uri), config),
        pipeline,
        date.fromisoformat(event_date),
        date.fromisoformat(trained_through),
    )
