"""The AUC ledger: one record per arm and event date, written once and never changed."""

from __future__ import annotations

from datetime import date

from components.common import storage
from components.common.config import Config
from components.common.digests import canonical_json
from components.common.errors import InputError
from components.common.layout import Store

CONTROL = "control"
CANDIDATE = "candidate"
SERVED = "served"
LOGISTIC_REGRESSION = "logistic_regression"
ARMS = (CONTROL, CANDIDATE)


class ObjectiveScore(Config):
    """How one objective's predictions did on one day's rows.

    Attributes:
        rows: Rows of the objective.
        positives: Positive rows.
        auc: Area under the ROC curve; None when only one class occurs.
        pr_auc: Average precision; None when only one class occurs.
        log_loss: Mean binary cross-entropy, in nats.
        mean_prediction: Mean probability; 0 without rows.
        calibration: Mean prediction over mean label; None without positives.
        auc_replicates: AUC under resampled users; replicate r resamples alike in every arm and on every day.
    """

    rows: int
    positives: int
    auc: float | None
    pr_auc: float | None
    log_loss: float
    mean_prediction: float
    calibration: float | None
    auc_replicates: tuple[float, ...] = ()


class LedgerRow(Config):
    """One model's scores on one day that it had not been trained on.

    Attributes:
        arm: `control`, `candidate`, `served` (the published version) or `logistic_regression` (the yardstick).
        event_date: The day.
        trained_through: The last day that the model had been trained on.
        checkpoint_digest: Which model.
        examples_digest: Which rows.
        scores: By objective.
    """

    arm: str
    event_date: date
    trained_through: date
    checkpoint_digest: str
    examples_digest: str
    scores: dict[str, ObjectiveScore]


def find_row(store: Store, event_date: date, arm: str) -> LedgerRow | None:
    """The record of one arm on one day, or None."""
    uri = store.ledger_row(event_date, arm)
    if not storage.exists(uri):
        return None
    return LedgerRow.model_validate_json(storage.read_bytes(uri))


def append_row(store: Store, row: LedgerRow) -> None:
    """Add a record; writing the same record again changes nothing.

    Raises:
        InputError: If a different record stands under the same arm and day.
    """
    present = find_row(store, row.event_date, row.arm)
    if present is None:
        storage.write_bytes(store.ledger_row(row.event_date, row.arm), canonical_json(row.model_dump(mode="json")))
    elif present != row:
        raise InputError(
            f"{store.ledger_row(row.event_date, row.arm)}: already holds checkpoint "
            f"{present.checkpoint_digest[:12]} on examples {present.examples_digest[:12]}; the ledger is append-only"
        )


def read_ledger(store: Store, through: date | None = None) -> list[LedgerRow]:
    """All records in order of day and arm, up to a day."""
    rows = []
    for day in store.ledger_days():
        if through is None or day <= through:
            names = storage.list_names(store.ledger_day(day))
            records = (find_row(store, day, name.removesuffix(".json")) for name in names)
            rows += [row for row in records if row is not None]
    return rows
