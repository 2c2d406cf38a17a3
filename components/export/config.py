"""How versions are exported."""

from __future__ import annotations

from pydantic import Field

from components.common.config import Config
from components.features.objectives import DEFAULT_SERVED, ServedObjectives


class ExportConfig(Config):
    """Opset, tables, files and parity."""

    served: ServedObjectives = DEFAULT_SERVED
    opset: int = Field(20, ge=18, le=23)
    max_table_error: float = Field(
        7e-3, gt=0, description="relative squared error above which a table gets a scale for every 16 numbers"
    )
    int8_share: float = Field(
        0.0, ge=0, le=1, description="of each table's rows, those looked up most often in training that keep 8 bits"
    )
    single_file: bool = Field(False, description="also write predictor.onnx, which has the tables inside and takes ids")
    parity_days: int = Field(5, ge=1, description="newest scored days on which the version is compared with torch")
    parity_rows: int = Field(100_000, ge=2, description="evaluation rows of these days, the newest at most")
    max_parity_difference: float = Field(
        1e-5, gt=0, description="of a probability, between torch and ONNX on the same packed rows"
    )
    max_auc_change_percent: float = Field(0.10, gt=0, description="by INT4 tables, of every served objective")
    max_mean_change: float = Field(0.01, gt=0, description="of the mean prediction by INT4 tables, relative")
