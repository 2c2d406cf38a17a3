"""The section `cluster` of a configuration: where the pipelines run, and what their pods are given."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from components.common.config import Config
from pipelines.resources import STEPS, TRAINING_STEPS, StepResources, Toleration

# As Kubernetes writes them.
Quantity = Annotated[str, Field(pattern=r"^[0-9]+(\.[0-9]+)?(m|Ki|Mi|Gi|Ti)?$")]
Name = Annotated[str, Field(pattern=r"^[a-z0-9]([a-z0-9.-]*[a-z0-9])?$")]
VariableName = Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")]
_OF_SECRETS = ("SECRET", "PASSWORD", "TOKEN", "ACCESS_KEY")


class SecretVariable(Config):
    """An environment variable of every step whose value is in a Kubernetes Secret, never in this file."""

    name: VariableName
    secret: Name = Field(description="the Secret, in the namespace of the runs")
    key: str = Field(min_length=1, description="its key")


class StepOverride(Config):
    """What differs from the table of pipelines/resources.py for one step."""

    cpu: Quantity | None = None
    memory: Quantity | None = None
    gpus: int | None = Field(None, ge=0)
    nodes: int | None = Field(None, ge=1, description="of training")
    start_minutes: int | None = Field(None, ge=1, description="until a TrainJob has a running pod")
    shared_memory: Quantity | None = Field(None, description="size of /dev/shm")
    retries: int | None = Field(None, ge=0)
    timeout_minutes: int | None = Field(None, ge=1)
    node_selector: dict[str, str] | None = None
    tolerations: tuple[Toleration, ...] | None = None


class ClusterConfig(Config):
    """A Kubeflow installation, as far as the pipelines depend on it; nothing in it changes a model."""

    namespace: Name = Field("kubeflow", description="of the runs: in multi-user mode, the profile's")
    experiment: str = Field("afterclick", min_length=1)
    daily_cron: str = Field(
        "0 0 * * * *", pattern=r"^\S+( \S+){5}$", description="when to look for a due day: six fields"
    )
    pretraining_cron: str = Field(
        "0 0 3 * * 0",
        pattern=r"^\S+( \S+){5}$",
        description="when to pretrain tables anew, if the section is there",
    )
    service_account: Name | None = Field(None, description="of all pods, e.g. one with a role on the bucket")
    image_prefix: str = Field("", description="registry and path before the images' names, with a slash at the end")
    image_pull_secrets: tuple[Name, ...] = ()
    accelerator: Literal["gpu", "cpu"] = Field("gpu", description="cpu: no step asks for a GPU")
    gpu_type: str = Field("nvidia.com/gpu", min_length=1)
    environment: dict[VariableName, str] = Field({}, description="of every step, e.g. AWS_ENDPOINT_URL; no secrets")
    secrets: tuple[SecretVariable, ...] = ()
    labels: dict[str, str] = Field({}, description="of every pod, e.g. a Kueue queue's")
    run_deadline_hours: int = Field(
        24, ge=1, description="a run that takes longer is ended, also one that waits for a node"
    )
    steps: dict[str, StepOverride] = {}

    @model_validator(mode="after")
    def _check_steps(self) -> ClusterConfig:
        unknown = sorted(set(self.steps) - set(STEPS))
        if unknown:
            raise ValueError(f"cluster.steps: {unknown[0]} is no step; there are {', '.join(STEPS)}")
        many = [name for name, step in self.steps.items() if (step.nodes or 1) > 1 and name not in TRAINING_STEPS]
        if many:
            raise ValueError(f"cluster.steps.{many[0]}.nodes: only {', '.join(TRAINING_STEPS)} take several nodes")
        secret = [name for name in self.environment if any(word in name.upper() for word in _OF_SECRETS)]
        if secret:
            raise ValueError(
                f"cluster.environment.{secret[0]}: looks like a secret; name a Kubernetes Secret under cluster.secrets"
            )
        return self

    def of_step(self, name: str) -> StepResources:
        """A step's row of the table, with what this cluster overrides."""
        row = STEPS[name]
        given = self.steps[name].model_dump(exclude_none=True) if name in self.steps else {}
        changed = row.model_copy(update={key: getattr(self.steps[name], key) for key in given})
        return changed.model_copy(update={"gpus": 0}) if self.accelerator == "cpu" else changed

    def image(self, name: str) -> str:
        """The image of a step."""
        return f"{self.image_prefix}{STEPS[name].image}"


DEFAULT_CLUSTER = ClusterConfig()
