"""The recipe of one arm."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, ValidationInfo, field_validator, model_validator

from components.common.config import Config
from components.common.objectives import OBJECTIVE_NAMES
from components.train.presets import with_preset


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

    `preset: tiny`, `demo` or `paper` stands for sizes by name (components/train/presets.py); those given beside it
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


class TestConfig(Config):
    """Test loss while a batch trains, on its last day; that day is trained on when the others are done."""

    points_per_epoch: int = Field(10, ge=1)
    patience: int | None = Field(
        None, ge=1, description="stop after so many points without a lower total loss, and go back to the best"
    )


class ShardingConfig(Config):
    """How tables are spread; the model trained is the same, but for rounding."""

    kinds: tuple[Literal["table_wise", "row_wise"], ...] = Field(
        ("table_wise", "row_wise"), min_length=1, description="whole tables, or equal parts of a table's rows"
    )
    memory_gib: float = Field(32.0, gt=0, description="that each process has for tables and their moments")


class ExecutionConfig(Config):
    """How training runs: nothing here changes its result."""

    device: Literal["auto", "cpu", "cuda"] = Field("auto", description="auto is cuda where there is one")
    resume_minutes: float = Field(10.0, ge=0, description="between points that a killed run goes on from")
    resume_steps: int | None = Field(None, ge=1, description="the same in steps, instead of resume_minutes")
    keep_resume_points: int = Field(1, ge=1, description="of a run that goes on; those of a finished one are deleted")
    keep_days: int | None = Field(
        None, ge=2, description="daily checkpoints to keep beside those still in use; all when not given"
    )
    sharding: ShardingConfig = ShardingConfig()
    tensorboard: bool = Field(True, description="write event files to the store's folder tensorboard")


class TrainConfig(Config):
    """Everything that makes two training runs differ, and how they run."""

    model: ModelConfig = ModelConfig()
    optimizer: OptimizerConfig = OptimizerConfig()
    batch_size: int = Field(2000, ge=1)
    epochs: int = Field(1, ge=1, description="passes over the batch days; a continual day is seen once")
    pool_rows: int = Field(262_144, ge=1, description="examples held in memory at a time; the shuffle mixes as many")
    objective_weights: dict[str, float] = Field({}, description="weights in the total loss; 1 where not given")
    steps_per_point: int = Field(25, ge=1, description="steps that one point of the loss curve averages over")
    num_threads: int = Field(2, ge=1, description="CPU threads; another number may change the last bits")
    precision: Literal["float32", "bfloat16"] = Field(
        "float32", description="of the net's matrix products; tables and optimizer stay in float32"
    )
    seed: int = 0
    test: TestConfig | None = Field(None, description="test loss during batch training; none when not given")
    execution: ExecutionConfig = ExecutionConfig()

    @field_validator("objective_weights")
    @classmethod
    def _check_weights(cls, weights: dict[str, float]) -> dict[str, float]:
        for name, weight in weights.items():
            if name not in OBJECTIVE_NAMES:
                raise ValueError(f"{name!r} is not an objective; one of {list(OBJECTIVE_NAMES)}")
            if weight < 0:
                raise ValueError(f"{name} = {weight}: weights are at least 0")
        return weights

    @model_validator(mode="after")
    def _check_epochs(self) -> TrainConfig:
        if self.optimizer.reinitialize is not None and self.epochs < 2:
            raise ValueError(
                "optimizer.reinitialize redraws tables between epochs, of which there is one; set epochs: 2"
            )
        if self.optimizer.tables == "rowwise_adagrad" and self.model.embedding_dim % 4:
            raise ValueError(
                f"model.embedding_dim = {self.model.embedding_dim}: FBGEMM's rowwise_adagrad takes multiples of 4"
            )
        if self.optimizer.reinitialize is not None and self.test is not None and self.test.patience is not None:
            raise ValueError(
                "test.patience stops inside an epoch, where redrawn tables are half trained; leave out one of "
                "test.patience and optimizer.reinitialize"
            )
        return self

    def recipe(self) -> dict[str, Any]:
        """What decides the result, as plain values."""
        return self.model_dump(mode="json", exclude={"execution"})
