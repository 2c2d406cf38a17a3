"""How versions are exported."""

from __future__ import annotations

from pydantic import Field

from components.common.config import Config


class ExportConfig(Config):
    """Opset, batch limit and parity."""

    opset: int = Field(20, ge=18, le=23)
    max_batch: int = Field(8192, ge=2)
    parity_rows: int = Field(2000, ge=2, description="evaluation rows on which the version is compared with torch")
    max_parity_difference: float = Field(1e-5, gt=0, description="largest allowed difference of a probability")
