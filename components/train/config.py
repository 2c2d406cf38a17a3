"""The recipe of one arm."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, ValidationInfo, field_validator

from components.common.config import Config
from components.common.objectives import OBJECTIVE_NAMES


class ModelConfig(Config):
    """Sizes of the ranker."""

    embedding_dim: int = Field(16, ge=1, le=1024)
    embedding_init: float = Field(0.01, gt=0, description="standard deviation of new table rows")
    sequence_dim: int = Field(32, ge=1)
    sequence_heads: int = Field(2, ge=1)
    sequence_layers: int = Field(1, ge=1)
    hidden_sizes: tuple[int, ...] = Field((128, 64), min_length=1)
    head_size: int = Field(32, ge=1)
    dropout: float = Field(0.0, ge=0, lt=1)

    @field_validator("sequence_heads")
    @classmethod
    def _check_heads(cls, heads: int, info: ValidationInfo) -> int:
        dim = info.data.get("sequence_dim", heads)
        if dim % heads:
            raise ValueError(f"sequence_dim = {dim} is not a multiple of it; change one of the two")
        return heads


class OptimizerConfig(Config):
    """Adam, with a learning rate of its own for the embedding tables.

    A `table_multiplier` of 50 is the Sparse Optimizer (Qiu et al. 2025, section 3.1).
    """

    kind: Literal["adam"] = "adam"
    learning_rate: float = Field(1.5e-4, gt=0)
    table_multiplier: float = Field(1.0, gt=0, description="tables learn at this multiple of learning_rate")
    betas: tuple[float, float] = (0.9, 0.999)
    eps: float = Field(1e-5, gt=0)
    max_gradient_norm: float | None = Field(None, gt=0, description="clip the dense gradients to this norm")


class TrainConfig(Config):
    """Everything that makes two training runs differ."""

    model: ModelConfig = ModelConfig()
    optimizer: OptimizerConfig = OptimizerConfig()
    batch_size: int = Field(2000, ge=1)
    epochs: int = Field(1, ge=1, description="passes over the batch days; a continual day is seen once")
    objective_weights: dict[str, float] = Field({}, description="weights in the total loss; 1 where not given")
    steps_per_point: int = Field(25, ge=1, description="steps that one point of the loss curve averages over")
    num_threads: int = Field(2, ge=1, description="CPU threads; another number may change the last bits")
    seed: int = 0

    @field_validator("objective_weights")
    @classmethod
    def _check_weights(cls, weights: dict[str, float]) -> dict[str, float]:
        for name, weight in weights.items():
            if name not in OBJECTIVE_NAMES:
                raise ValueError(f"{name!r} is not an objective; one of {list(OBJECTIVE_NAMES)}")
            if weight < 0:
                raise ValueError(f"{name} = {weight}: weights are at least 0")
        return weights
