"""Sizes of the ranker."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, ValidationInfo, field_validator, model_validator

from components.common.config import Config, Distinct
from components.features.events import USER
from components.ranker.presets import with_preset


class DhenConfig(Config):
    """Layers that ensemble different ways of mixing features (Zhang et al. 2022)."""

    num_layers: int = Field(2, ge=1)
    modules: tuple[Literal["transformer", "masknet", "mlp"], ...] = Field(
        ("transformer", "masknet", "mlp"), min_length=1, description="side by side in every layer"
    )
    ensemble: Literal["sum", "concatenate"] = "sum"
    num_heads: int = Field(2, ge=1, description="of the Transformer; divides embedding_dim")
    hidden_size: int = Field(128, ge=1, description="of the MLP and of MaskNet's mask")
    dropout: float = Field(0.0, ge=0, lt=1, description="within the Transformer")

    @field_validator("modules")
    @classmethod
    def _check_modules(cls, modules: tuple[str, ...]) -> tuple[str, ...]:
        if len(set(modules)) != len(modules):
            raise ValueError(f"{list(modules)} names a module twice")
        return modules


class ModelConfig(Config):
    """Sizes of the ranker.

    `preset: tiny`, `demo` or `paper` stands for sizes by name (components/ranker/presets.py); those given beside it
    count first.
    """

    embedding_dim: int = Field(16, ge=2, le=1024, multiple_of=2, description="even: served tables are INT4")
    embedding_init: float = Field(0.01, gt=0, description="standard deviation of new table rows")
    sequence_dim: int = Field(32, ge=1)
    sequence_heads: int = Field(2, ge=1)
    sequence_layers: int = Field(1, ge=1)
    dhen: DhenConfig | None = Field(None, description="mixes features before the shared layers; none when not given")
    hidden_sizes: tuple[int, ...] = Field((128, 64), min_length=1)
    head_size: int = Field(32, ge=1)
    dropout: float = Field(0.0, ge=0, lt=1)

    @model_validator(mode="before")
    @classmethod
    def _fill_from_preset(cls, values: Any) -> Any:
        return with_preset(values) if isinstance(values, dict) else values

    @field_validator("sequence_heads")
    @classmethod
    def _check_heads(cls, heads: int, info: ValidationInfo) -> int:
        dim = info.data.get("sequence_dim", heads)
        if dim % heads:
            raise ValueError(f"sequence_dim = {dim} is not a multiple of it; change one of the two")
        return heads

    @field_validator("dhen")
    @classmethod
    def _check_dhen(cls, dhen: DhenConfig | None, info: ValidationInfo) -> DhenConfig | None:
        dim = info.data.get("embedding_dim")
        if dhen is not None and dim is not None and dim % dhen.num_heads:
            raise ValueError(f"embedding_dim = {dim} is not a multiple of num_heads = {dhen.num_heads}; change one")
        return dhen


class EngagementLossConfig(Config):
    """The contrastive loss that joins the ranker's in a single stage."""

    weight: float = Field(0.1, gt=0, description="in the total loss")
    batch_size: int = Field(512, ge=2, description="pairs beside each batch of examples")
    num_negatives: int = Field(256, ge=1, description="uniform random items, beside the pairs' own")
    temperature: float = Field(0.1, gt=0)


class PretrainedConfig(Config):
    """How an arm's batch starts from pretrained tables."""

    mode: Literal["finetuned", "frozen", "gated", "single_stage"] = Field(
        "finetuned",
        description="finetuned rows are trained on; frozen tables stay as they were pretrained; gated rows are trained "
        "on with the pretrained ones beside them, mixed by a learned gate; in a single stage nothing is pretrained, "
        "and the contrastive loss of the same days' engagement joins the ranker's",
    )
    engagement: EngagementLossConfig = EngagementLossConfig()
    tables: Annotated[tuple[str, ...], Distinct] = Field(
        (USER, "item_id"), min_length=1, description="that start from pretrained ones"
    )
    scale: float = Field(
        1.0, gt=0, description="root mean square of a table's pretrained numbers, in units of model.embedding_init"
    )
    warn_after_days: int = Field(60, ge=1, description="from the window's end to the batch's; beyond it a line says so")
    refuse_after_days: int = Field(180, ge=1, description="beyond it the batch does not start")

    @model_validator(mode="after")
    def _check_ages(self) -> PretrainedConfig:
        if self.refuse_after_days < self.warn_after_days:
            raise ValueError("refuse_after_days is before warn_after_days; exchange them")
        return self

    @property
    def gated_tables(self) -> tuple[str, ...]:
        """Tables whose rows have pretrained ones beside them."""
        return self.tables if self.mode == "gated" else ()
