"""What the directories of a log's days hold."""

from __future__ import annotations

from typing import ClassVar

import pyarrow as pa

from components.common.manifests import Manifest

# The one file of a day of clean logs or quarantine; delivered logs may have others beside it.
LOG_FILE = "part-0.parquet"


class DeliveredLogManifest(Manifest):
    """One day of a log as its source delivered it.

    Attributes:
        rows: In all its files.
        left_out: Further rows of the day that the configuration leaves out, by reason.
    """

    kind: ClassVar[str] = "logs"
    is_remembered: ClassVar[bool] = True

    rows: int
    left_out: dict[str, int] = {}


class CleanLogManifest(Manifest):
    """One day of a log after validation.

    Attributes:
        rows: Clean ones.
        delivered: Rows before validation.
        quarantined: Rejected rows by reason.
        identifiers: The type of each identifier column's values, or of those in its lists: `int64`, `string`, or
            `null` where no row has one.
    """

    kind: ClassVar[str] = "clean_logs"
    is_remembered: ClassVar[bool] = True

    rows: int
    delivered: int
    quarantined: dict[str, int]
    identifiers: dict[str, str]

    @property
    def num_quarantined(self) -> int:
        """Rejected rows."""
        return sum(self.quarantined.values())

    @property
    def identifier_types(self) -> dict[str, pa.DataType]:
        """The Arrow type of each identifier column that has a value in some row."""
        return {name: pa.type_for_alias(kind) for name, kind in self.identifiers.items() if kind != "null"}


class QuarantineManifest(Manifest):
    """One day's rejected rows of a log.

    Attributes:
        reasons: Rows by reason.
    """

    kind: ClassVar[str] = "quarantine"

    reasons: dict[str, int]
