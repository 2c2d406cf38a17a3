"""Scores the arms, the served version and the yardstick on one unseen day."""

from __future__ import annotations

from datetime import date

import numpy as np
import pyarrow as pa

from components.common.config import ResolvedConfig
from components.common.errors import InputError
from components.common.layout import Store
from components.common.ledger import (
    ARMS,
    LOGISTIC_REGRESSION,
    SERVED,
    LedgerRow,
    ObjectiveScore,
    append_row,
    find_row,
)
from components.common.manifests import read_manifest
from components.common.progress import Progress, log_line
from components.common.releases import Pointer, read_pointer, read_publication
from components.evaluate.config import EvaluationConfig
from components.evaluate.logistic_regression import Yardstick
from components.evaluate.metrics import score_objective
from components.features.events import DatasetConfig
from components.features.examples import EVALUATION, TRAINING, keep_rate, read_examples
from components.features.objectives import OBJECTIVE_NAMES, SERVED_OBJECTIVES
from components.ranker.checkpoint import CheckpointManifest, TrainedRanker, find_checkpoint
from components.ranker.dataset import ExampleSet, tensors_of


def evaluate_day(
    store_uri: str,
    dataset: DatasetConfig,
    config: EvaluationConfig,
    pipeline: str,
    event_date: date,
    trained_through: date,
) -> dict[str, dict[str, float | None]]:
    """Score every model on a day that it has not seen, and append the scores to the ledger.

    Both arms are taken as they were after `trained_through`. Records that are there already are kept. The served
    version is scored until this run has published: after that, it would be judged against itself.

    Returns:
        AUC by arm and served objective.

    Raises:
        InputError: If a checkpoint is absent, the served one is not the one that was published, or `trained_through` is
            not before the day.
    """
    if trained_through >= event_date:
        raise InputError(f"models trained through {trained_through} have seen {event_date}; score a later day")
    store = Store(store_uri)
    table, manifest = read_examples(store, EVALUATION, event_date)
    scorer = _Scorer(store, config, event_date, table, manifest.content_digest)
    pointer = None if read_publication(store, pipeline, event_date) else read_pointer(store)
    names = [*ARMS, *([SERVED] if pointer else []), *([LOGISTIC_REGRESSION] if config.logistic_regression else [])]
    rows = []
    progress = Progress(f"evaluate {event_date}", len(names))
    for done, name in enumerate(names, start=1):
        row = find_row(store, event_date, name)
        if row is None:
            if name == LOGISTIC_REGRESSION:
                row = scorer.score_yardstick(dataset, trained_through)
            else:
                row = scorer.score_checkpoint(name, trained_through, pointer)
            append_row(store, row)
        elif row.examples_digest != scorer.examples_digest:
            raise InputError(
                f"{store.ledger_row(event_date, name)}: scored on other examples of {event_date} than those there now; "
                "the ledger is append-only, restore the examples"
            )
        rows.append(row)
        progress.update(done, name)
    aucs = {row.arm: {name: row.scores[name].auc for name in SERVED_OBJECTIVES if name in row.scores} for row in rows}
    for arm, scores in aucs.items():
        shown = ", ".join(f"{name} {auc:.4f}" if auc is not None else f"{name} -" for name, auc in scores.items())
        log_line("evaluate", f"{event_date}: {arm}: AUC {shown}")
    return aucs


class _Scorer:
    """Makes ledger rows for one day's examples."""

    def __init__(
        self, store: Store, config: EvaluationConfig, event_date: date, table: pa.Table, examples_digest: str
    ) -> None:
        self.examples_digest = examples_digest
        self._store, self._config, self._event_date, self._table = store, config, event_date, table

    def score_checkpoint(self, name: str, trained_through: date, pointer: Pointer | None) -> LedgerRow:
        """Score an arm's checkpoint, or the one that the production channel serves."""
        arm, through = name, trained_through
        if name == SERVED:
            assert pointer is not None
            arm, through = pointer.arm, pointer.trained_through
            published = find_checkpoint(self._store, arm, through)
            if published is None or published.checkpoint_digest != pointer.checkpoint_digest:
                raise InputError(
                    f"{self._store.checkpoint(arm, through)}: not the checkpoint {pointer.checkpoint_digest[:12]} that "
                    "is served; restore it"
                )
        ranker = TrainedRanker.load(self._store, arm, through)
        examples = tensors_of(self._table, ranker.features, unsampled=True)
        probabilities = ranker.predict(examples, self._config.batch_size)
        by_name = dict(zip(OBJECTIVE_NAMES, probabilities.T, strict=True))
        return self._row(name, through, ranker.checkpoint.checkpoint_digest, examples, by_name)

    def score_yardstick(self, dataset: DatasetConfig, trained_through: date) -> LedgerRow:
        """Fit the logistic regression on the days that the control has seen, and score it."""
        checkpoint = read_manifest(self._store.checkpoint(ARMS[0], trained_through), CheckpointManifest)
        days = dataset.open_days(checkpoint.lineage.first_day, trained_through)
        read = [read_examples(self._store, TRAINING, day) for day in days]
        training = tensors_of(pa.concat_tables([table for table, _ in read]), checkpoint.features, unsampled=False)
        yardstick = Yardstick(training, keep_rate([manifest for _, manifest in read]), self._config.regression_c)
        examples = tensors_of(self._table, checkpoint.features, unsampled=True)
        digest = yardstick.digest()
        return self._row(LOGISTIC_REGRESSION, trained_through, digest, examples, yardstick.predict(examples))

    def _row(
        self, arm: str, through: date, digest: str, examples: ExampleSet, probabilities: dict[str, np.ndarray]
    ) -> LedgerRow:
        scores: dict[str, ObjectiveScore] = {}
        for number, name in enumerate(OBJECTIVE_NAMES):
            if name in probabilities:
                taking_part = examples.masks[:, number].numpy() > 0
                scores[name] = score_objective(
                    examples.labels[:, number].numpy()[taking_part],
                    probabilities[name][taking_part],
                    examples.users[taking_part],
                    self._config.num_replicates if name in SERVED_OBJECTIVES else 0,
                )
        return LedgerRow(
            arm=arm,
            event_date=self._event_date,
            trained_through=through,
            checkpoint_digest=digest,
            examples_digest=self.examples_digest,
            scores=scores,
        )


def main(
    store_uri: str, config_uri: str, pipeline: str, event_date: str, trained_through: str
) -> dict[str, dict[str, float | None]]:
    """`evaluate_day` under a run's configuration."""
    config = ResolvedConfig.open(config_uri)
    return evaluate_day(
        store_uri,
        config.section(DatasetConfig, "dataset"),
        config.section(EvaluationConfig, "evaluation"),
        pipeline,
        date.fromisoformat(event_date),
        date.fromisoformat(trained_through),
    )
