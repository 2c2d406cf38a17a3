"""The recipe of one arm."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, field_validator, model_validator

from components.common.arms import FREE_SETTINGS
from components.common.config import Config
from components.common.digests import digest_json
from components.features.objectives import OBJECTIVE_NAMES
from components.ranker.config import ModelConfig, PretrainedConfig
from components.tables.config import OptimizerConfig, ShardingConfig


class NextDayTestConfig(Config):
    """Test loss while a batch trains, on its last day; that day is trained on when the others are done."""

    points_per_epoch: int = Field(10, ge=1)
    patience: int | None = Field(
        None, ge=1, description="stop after so many points without a lower total loss, and go back to the best"
    )


class ExecutionConfig(Config):
    """How training runs: nothing here changes its result."""

    device: Literal["auto", "cpu", "cuda"] = Field("auto", description="auto is cuda where there is one")
    resume_minutes: float = Field(10.0, ge=0, description="between points that a killed run goes on from")
    resume_steps: int | None = Field(None, ge=1, description="the same in steps, instead of resume_minutes")
    keep_resume_points: int = Field(1, ge=1, description="of a run that goes on; those of a finished one are deleted")
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
    seed: int = Field(0, ge=0, lt=2**63)
    replicas: int = Field(
        1, ge=1, le=16, description="models of this recipe by other random starts: an arm's AUC is their mean"
    )
    test: NextDayTestConfig | None = Field(None, description="test loss during batch training; none when not given")
    pretrained: PretrainedConfig | None = Field(None, description="tables to start the batch from; drawn if not given")
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

    @model_validator(mode="after")
    def _check_pretrained(self) -> TrainConfig:
        if self.pretrained is None:
            return self
        if self.optimizer.reinitialize is not None:
            raise ValueError(
                "optimizer.reinitialize redraws the tables that pretrained fills; leave out one of the two"
            )
        if self.pretrained.mode in ("frozen", "gated") and self.optimizer.tables == "adam":
            raise ValueError(
                f"pretrained.mode: {self.pretrained.mode} leaves rows as they are, which needs an optimizer of single "
                "rows; set optimizer.tables: lazy_adam"
            )
        return self

    def without(self, objectives: tuple[str, ...]) -> TrainConfig:
        """The same, with no weight on some objectives."""
        weights = {**self.objective_weights, **dict.fromkeys(objectives, 0.0)}
        return self.model_copy(update={"objective_weights": weights})

    def start(self, number: int) -> TrainConfig:
        """The recipe of one of the arm's random starts; the first has the seed that is given."""
        if not number:
            return self
        return self.model_copy(update={"seed": int(digest_json([self.seed, number])[:15], 16)})

    def binding(self) -> dict[str, Any]:
        """What an arm must not change between its days, as plain values."""
        return self._given(set(FREE_SETTINGS))

    def recipe(self) -> dict[str, Any]:
        """What decides the result, as plain values."""
        return self._given({"execution"})

    def _given(self, without: set[str]) -> dict[str, Any]:
        # What came later is left out where it is not used: recipes of before stay what they were.
        later = {"replicas", *(["pretrained"] if self.pretrained is None else [])}
        return self.model_dump(mode="json", exclude=without | later)
