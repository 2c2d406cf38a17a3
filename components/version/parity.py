"""How a version's predictions differ from those of the checkpoint that it was exported from."""

from __future__ import annotations

from datetime import date

from components.common.config import Config


class ObjectiveParity(Config):
    """What INT4 tables change of one objective, on the rows that take part in it.

    Attributes:
        auc: Of the checkpoint; None where only one class occurs.
        int4_auc: Of the version, likewise.
        auc_change_percent: From the first to the second.
        auc_change_error_percent: Its standard error, over users.
        expected_auc_change_percent: Change of the AUC where labels follow the checkpoint's own probabilities: without
            the chance that is in few conversions; None without rows.
        mean_prediction_ratio: Mean prediction of the version over the checkpoint's; None without rows.
    """

    auc: float | None = None
    int4_auc: float | None = None
    auc_change_percent: float | None = None
    auc_change_error_percent: float | None = None
    expected_auc_change_percent: float | None = None
    mean_prediction_ratio: float | None = None


class TableBytes(Config):
    """Bytes of a version's tables.

    Attributes:
        int4: As they are.
        float16: As float16.
        ratio: The first over the second.
    """

    int4: int
    float16: int
    ratio: float


class TableParity(Config):
    """What packed tables change.

    Attributes:
        int4_max_difference: Of a probability, at most.
        objectives: By objective.
        table_bytes: What they take.
    """

    int4_max_difference: float
    objectives: dict[str, ObjectiveParity]
    table_bytes: TableBytes


class Parity(TableParity):
    """All comparisons that an export makes.

    Attributes:
        rows: Evaluation rows that were compared.
        days: Their days.
        max_difference: Of a probability, between torch and ONNX on the same packed rows.
        single_file_max_difference: The same, between the single file and the two; None where there is none.
        plain_int4: What tables without 8-bit rows would change; None where there are no 8-bit rows.
    """

    rows: int
    days: tuple[date, ...]
    max_difference: float
    single_file_max_difference: float | None = None
    plain_int4: TableParity | None = None
