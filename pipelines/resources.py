"""What each step runs on: the one table that compiled pipelines take image, CPU, memory, GPU and retries from."""

from __future__ import annotations

from dataclasses import dataclass

from kfp.dsl import PipelineTask

BEAM_IMAGE = "afterclick/beam:0.1.0"
TRAIN_IMAGE = "afterclick/train:0.1.0"
GPU_TYPE = "nvidia.com/gpu"


@dataclass(frozen=True)
class Resources:
    """Limits of one step's container.

    Attributes:
        image: The container image.
        cpu: Cores.
        memory: Kubernetes quantity.
        gpus: Accelerators of `GPU_TYPE`.
        retries: Attempts after a failure; every step may be run again at any moment.
        cached: Whether an equal call may be answered from the cluster's cache; steps that read the store may not.
    """

    image: str
    cpu: str
    memory: str
    gpus: int = 0
    retries: int = 2
    cached: bool = False


STEPS: dict[str, Resources] = {
    "pick-days": Resources(BEAM_IMAGE, "500m", "1Gi"),
    "nothing-due": Resources(BEAM_IMAGE, "500m", "1Gi"),
    "make-logs": Resources(BEAM_IMAGE, "2", "8Gi"),
    "validate-logs": Resources(BEAM_IMAGE, "2", "8Gi"),
    "join-examples": Resources(BEAM_IMAGE, "4", "16Gi"),
    "validate-examples": Resources(BEAM_IMAGE, "2", "8Gi"),
    "train-batch": Resources(TRAIN_IMAGE, "8", "64Gi", gpus=1, retries=3),
    "train-days": Resources(TRAIN_IMAGE, "8", "64Gi", gpus=1, retries=3),
    "evaluate": Resources(TRAIN_IMAGE, "8", "32Gi", gpus=1),
    "gate": Resources(TRAIN_IMAGE, "500m", "2Gi"),
    "export": Resources(TRAIN_IMAGE, "4", "32Gi"),
    "publish": Resources(TRAIN_IMAGE, "1", "8Gi"),
    "keep-served": Resources(TRAIN_IMAGE, "500m", "1Gi"),
    "report": Resources(TRAIN_IMAGE, "1", "4Gi"),
}


def on_cluster(task: PipelineTask, display_name: str | None = None) -> PipelineTask:
    """Give a task the resources of its component's row in `STEPS`."""
    resources = STEPS[task.component_spec.name]
    task.set_container_image(resources.image)
    task.set_cpu_request(resources.cpu).set_cpu_limit(resources.cpu)
    task.set_memory_request(resources.memory).set_memory_limit(resources.memory)
    task.set_retry(resources.retries, backoff_duration="30s", backoff_factor=2.0)
    task.set_caching_options(resources.cached)
    if resources.gpus:
        task.set_accelerator_type(GPU_TYPE).set_accelerator_limit(resources.gpus)
    return task.set_display_name(display_name) if display_name else task
