"""The one table of what a step gets on a cluster; the section `cluster` of a configuration overrides it."""

from __future__ import annotations

from typing import Literal

from components.common.config import Config

VERSION = "0.1.0"
BEAM_IMAGE = f"afterclick/beam:{VERSION}"
TRAIN_IMAGE = f"afterclick/train:{VERSION}"


class Toleration(Config):
    """A taint that a pod may be scheduled on."""

    key: str
    operator: Literal["Equal", "Exists"] = "Exists"
    value: str | None = None
    effect: Literal["NoExecute", "NoSchedule", "PreferNoSchedule"] | None = None


class StepResources(Config):
    """What one step's pod gets.

    Attributes:
        image: The container image.
        cpu: Cores, asked for and at most.
        memory: Likewise, as a Kubernetes quantity.
        gpus: Accelerators of a node.
        nodes: Of training; more than one, or more than one GPU, is a TrainJob that the step starts and watches.
        start_minutes: After how long without a running pod a TrainJob is given up.
        shared_memory: Size of /dev/shm, which is memory of the pod.
        retries: Attempts after a failure, where the cluster makes them (docs/cluster.md).
        timeout_minutes: A pod that runs longer is ended.
        node_selector: Labels of the nodes.
        tolerations: Taints that it may be scheduled on.
    """

    image: str
    cpu: str
    memory: str
    gpus: int = 0
    nodes: int = 1
    start_minutes: int = 60
    shared_memory: str | None = None
    retries: int = 2
    timeout_minutes: int = 360
    node_selector: dict[str, str] = {}
    tolerations: tuple[Toleration, ...] = ()

    @property
    def is_distributed(self) -> bool:
        """Whether training takes several processes."""
        return self.nodes * max(self.gpus, 1) > 1


_ON_GPU_NODES = (Toleration(key="nvidia.com/gpu"),)
_TRAINING = StepResources(
    image=TRAIN_IMAGE, cpu="8", memory="64Gi", gpus=1, shared_memory="8Gi", tolerations=_ON_GPU_NODES
)
# Of a step that only watches a TrainJob.
WATCHER = StepResources(image=TRAIN_IMAGE, cpu="500m", memory="1Gi")
STEPS: dict[str, StepResources] = {
    "prepare-examples": StepResources(image=BEAM_IMAGE, cpu="4", memory="16Gi", timeout_minutes=480),
    "train-batch": _TRAINING.model_copy(update={"timeout_minutes": 1320}),
    "train-days": _TRAINING,
    "collect-edges": StepResources(image=BEAM_IMAGE, cpu="4", memory="16Gi", timeout_minutes=480),
    "pretrain-tables": _TRAINING.model_copy(update={"timeout_minutes": 1320}),
    "evaluate": StepResources(image=TRAIN_IMAGE, cpu="8", memory="32Gi", gpus=1, tolerations=_ON_GPU_NODES),
    "release": StepResources(image=TRAIN_IMAGE, cpu="4", memory="32Gi"),
}
# More than one process of these is a TrainJob.
TRAINING_STEPS = ("train-batch", "train-days", "pretrain-tables")
