"""Gives the tasks of a pipeline what the table and the section `cluster` say of their pods."""

from __future__ import annotations

from kfp import kubernetes
from kfp.dsl import PipelineConfig, PipelineTask

from pipelines.cluster import ClusterConfig
from pipelines.resources import TRAINING_STEPS, WATCHER, StepResources

# By which the network policies of k8s/ know them.
_LABELS = {"app.kubernetes.io/part-of": "afterclick", "app.kubernetes.io/component": "steps"}


def on_cluster(task: PipelineTask, cluster: ClusterConfig, display_name: str = "") -> PipelineTask:
    """Give a task what its component's row says, and what all pods of the cluster's runs get."""
    name = task.component_spec.name
    given = cluster.of_step(name)
    if given.is_distributed and name in TRAINING_STEPS:
        given = WATCHER.model_copy(update={"timeout_minutes": given.timeout_minutes + given.start_minutes})
    task.set_container_image(cluster.image(name))
    task.set_cpu_request(given.cpu).set_cpu_limit(given.cpu)
    task.set_memory_request(given.memory).set_memory_limit(given.memory)
    task.set_retry(given.retries, backoff_duration="30s", backoff_factor=2.0)
    # A finished step finds its own output and returns; a cache would not see what the store holds by now.
    task.set_caching_options(False)
    if given.gpus:
        task.set_accelerator_type(cluster.gpu_type).set_accelerator_limit(given.gpus)
    for variable, value in cluster.environment.items():
        task.set_env_variable(variable, value)
    _place(task, given)
    for label, value in {**_LABELS, **cluster.labels}.items():
        kubernetes.add_pod_label(task, label, value)
    for secret in cluster.secrets:
        kubernetes.use_secret_as_env(task, secret.secret, {secret.key: secret.name})
    if cluster.image_pull_secrets:
        kubernetes.set_image_pull_secrets(task, list(cluster.image_pull_secrets))
    return task.set_display_name(display_name) if display_name else task


def _place(task: PipelineTask, given: StepResources) -> None:
    """Where and how long the pod runs, and the little that it may write to beside the store."""
    kubernetes.set_timeout(task, given.timeout_minutes * 60)
    kubernetes.set_security_context(task, run_as_non_root=True)
    kubernetes.set_image_pull_policy(task, "IfNotPresent")
    kubernetes.empty_dir_mount(task, "scratch", "/tmp")
    if given.shared_memory:
        kubernetes.empty_dir_mount(task, "shared-memory", "/dev/shm", medium="Memory", size_limit=given.shared_memory)
    for label, value in given.node_selector.items():
        kubernetes.add_node_selector(task, label, value)
    if given.gpus:
        for toleration in given.tolerations:
            kubernetes.add_toleration(task, **toleration.model_dump(exclude_none=True))


def run_limits(cluster: ClusterConfig) -> PipelineConfig:
    """A run that hangs, for instance because a pod cannot be scheduled, is ended."""
    return PipelineConfig(active_deadline_seconds=cluster.run_deadline_hours * 3600)
