"""How embedding tables are trained, and how they are spread over processes."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from components.common.config import Config


class FrequencyAdaptive(Config):
    """Frequency-adaptive learning rates of table rows, FAL (Qiu et al. 2025, equation 1)."""

    scaling: Literal["log", "linear"] = "log"
    counts: Literal["accumulated", "precomputed"] = Field(
        "accumulated", description="look-ups so far, or of all examples before training on them"
    )
    apply_to: Literal["update", "gradient"] = Field(
        "update", description="gradient is the paper's algorithm 1 to the letter: under Adam it only rescales eps"
    )


class Reinitialize(Config):
    """Tables are redrawn at the start of each epoch but the first, MEDA (Fan et al. 2024)."""

    keep_above: int | None = Field(
        None, ge=0, description="rows looked up more often than this stay; redrawn ones then start as late rows do"
    )


class OptimizerConfig(Config):
    """Adam on the net, and an optimizer with a learning rate of its own for the embedding tables.

    A `table_multiplier` of 50 is the Sparse Optimizer (Qiu et al. 2025, section 3.1).
    """

    learning_rate: float = Field(1.5e-4, gt=0)
    table_multiplier: float = Field(1.0, gt=0, description="tables learn at this multiple of learning_rate")
    betas: tuple[float, float] = (0.9, 0.999)
    eps: float = Field(1e-5, gt=0)
    weight_decay: float = Field(0.0, ge=0, description="of the dense net's matrices, decoupled (AdamW)")
    max_gradient_norm: float | None = Field(None, gt=0, description="clip the dense gradients to this norm")
    tables: Literal["adam", "lazy_adam", "rowwise_adagrad"] = Field(
        "adam", description="dense Adam moves all rows at every step; the others those of the batch"
    )
    bias_correction: Literal["global", "row"] = Field(
        "global", description="of lazy Adam's moments: by all steps, or by the updates of a row"
    )
    frequency_adaptive: FrequencyAdaptive | None = None
    reinitialize: Reinitialize | None = None

    @model_validator(mode="after")
    def _check_tables(self) -> OptimizerConfig:
        needs_rows = {
            "frequency_adaptive": self.frequency_adaptive is not None,
            "reinitialize.keep_above": self.reinitialize is not None and self.reinitialize.keep_above is not None,
            "bias_correction: row": self.bias_correction == "row",
        }
        for name, is_set in needs_rows.items():
            if is_set and self.tables == "adam":
                raise ValueError(f"{name} is about the rows of a batch; set tables: lazy_adam")
        if self.bias_correction == "row" and self.tables != "lazy_adam":
            raise ValueError(f"bias_correction is about Adam's moments, {self.tables} has none; leave it out")
        adaptive = self.frequency_adaptive
        if adaptive is not None and adaptive.apply_to == "gradient" and self.tables == "rowwise_adagrad":
            raise ValueError(
                "frequency_adaptive.apply_to: gradient does nothing under rowwise_adagrad, which divides any factor "
                "out; apply it to the update"
            )
        if adaptive is not None and adaptive.apply_to == "gradient" and self.eps < 1e-6:
            raise ValueError(
                f"frequency_adaptive.apply_to: gradient does nothing at eps = {self.eps:g}: Adam divides any "
                "factor out; raise eps to 1e-6 at least, or apply it to the update"
            )
        return self

    @property
    def counts_rows(self) -> bool:
        """Whether row frequencies are needed."""
        return self.frequency_adaptive is not None or (
            self.reinitialize is not None and self.reinitialize.keep_above is not None
        )


class ShardingConfig(Config):
    """How tables are spread; the model trained is the same, but for rounding."""

    kinds: tuple[Literal["table_wise", "row_wise"], ...] = Field(
        ("table_wise", "row_wise"), min_length=1, description="whole tables, or equal parts of a table's rows"
    )
    memory_gib: float = Field(32.0, gt=0, description="that each process has for tables and their moments")
