"""The AUC ledger: one record per arm and event date, which is final once its run is finished."""

from __future__ import annotations

from datetime import date
from typing import ClassVar

from components.common.config import Config, GrownConfig
from components.common.layout import Store
from components.common.records import find_record, write_record
from components.common.releases import DAILY

SERVED = "served"
LOGISTIC_REGRESSION = "logistic_regression"
NOT_ARMS = (SERVED, LOGISTIC_REGRESSION)


class Decile(Config):
    """A tenth of an objective's rows, by their predictions.

    Attributes:
        rows: How many.
        positives: Positive rows of them.
        mean_prediction: Mean probability.
    """

    rows: int
    positives: int
    mean_prediction: float


class SliceScore(Config):
    """How one objective's predictions did on a slice's rows, such as those of `surface=feed`; None as for all rows."""

    rows: int
    positives: int
    auc: float | None
    calibration: float | None


class ObjectiveScore(Config):
    """How one objective's predictions did on one day's rows.

    Attributes:
        rows: Rows of the objective.
        positives: Positive rows.
        auc: Area under the ROC curve; None when only one class occurs, or some prediction is no number.
        pr_auc: Average precision; None likewise.
        log_loss: Mean binary cross-entropy, in nats; None without rows, or where some prediction is no number.
        mean_prediction: Mean probability; None likewise.
        calibration: Mean prediction over mean label; None likewise, or without positives.
        grouped_auc: Mean of the AUCs of single users, weighted by their rows; None if no user has rows of both classes.
        normalized_entropy: Log loss over that of the day's share of positives as a prediction (He et al. 2014, section
            3); None where one of the two is not known.
        deciles: Tenths of the rows by their predictions, lowest first; of served objectives.
        slices: By name, such as `surface=feed`; of served objectives.
        num_not_finite: Predictions that are no finite number.
        auc_replicates: AUC under resampled users; replicate r resamples alike in every arm and on every day.
    """

    rows: int
    positives: int
    auc: float | None
    pr_auc: float | None
    log_loss: float | None
    mean_prediction: float | None
    calibration: float | None
    grouped_auc: float | None = None
    normalized_entropy: float | None = None
    deciles: tuple[Decile, ...] = ()
    slices: dict[str, SliceScore] = {}
    num_not_finite: int = 0
    auc_replicates: tuple[float, ...] = ()


class LedgerRow(GrownConfig):
    """One model's scores on one day that it had not been trained on.

    Attributes:
        arm: An arm, another start of it (`fal.1`), `served` (the published version) or `logistic_regression` (the
            yardstick).
        event_date: The day.
        trained_through: The last day that the model had been trained on.
        checkpoint_digest: Which model.
        recipe_digest: How the model was trained: arms are compared over days of one recipe each.
        examples_digest: Which rows.
        inputs_digest: Everything that the scores were computed from, and by which settings.
        scores: By objective.
        unknown_ids: Share of the day's rows whose id has no row of its own in the model, by table with exact ids.
    """

    later: ClassVar[tuple[str, ...]] = ("unknown_ids",)

    arm: str
    event_date: date
    trained_through: date
    checkpoint_digest: str
    recipe_digest: str
    examples_digest: str
    inputs_digest: str
    scores: dict[str, ObjectiveScore]
    unknown_ids: dict[str, float] = {}


def find_row(store: Store, event_date: date, arm: str) -> LedgerRow | None:
    """The record of one arm on one day, or None.

    Raises:
        InputError: If the record is damaged, or was changed by hand.
    """
    remedy = "restore it, or delete it and run the day again"
    return find_record(store.ledger_row(event_date, arm), LedgerRow, remedy)


def is_final(store: Store, pipeline: str, event_date: date) -> bool:
    """Whether the records of a day may no longer change in a pipeline's run: it is finished.

    The day after the batch is scored by the batch run and then by the first daily one, which may write it anew.
    """
    return event_date in store.finished_days(DAILY) or event_date in store.finished_days(pipeline)


def write_row(store: Store, row: LedgerRow) -> None:
    """Write a record of a run that is not finished, over the one that may be there."""
    write_record(store.ledger_row(row.event_date, row.arm), row)


def read_ledger(store: Store, through: date = date.max, since: date = date.min) -> list[LedgerRow]:
    """All records of days `since`..`through` in order of day and arm."""
    records = (find_row(store, day, arm) for day, arm in store.ledger_rows() if since <= day <= through)
    return [row for row in records if row is not None]
