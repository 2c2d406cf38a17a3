"""Writes the pipelines' YAML for Kubeflow."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from kfp.compiler import Compiler
from kfp.compiler.compiler_utils import KubernetesManifestOptions
from kfp.dsl.graph_component import GraphComponent

from components.common.digests import digest_bytes
from pipelines.cluster import DEFAULT_CLUSTER, ClusterConfig
from pipelines.pretraining import pretraining
from pipelines.training import SHIPPED_ARMS, batch_training, daily_training

PIPELINES: dict[str, Callable[[ClusterConfig, Sequence[str]], GraphComponent]] = {
    "batch_training": batch_training,
    "daily_training": daily_training,
    "pretraining": lambda cluster, arms: pretraining(cluster),
}


def uploaded_name(name: str) -> str:
    """What Kubeflow calls a pipeline."""
    return f"afterclick-{name.replace('_', '-')}"


def compile_pipelines(
    folder: Path,
    parameters: Mapping[str, Any] | None = None,
    cluster: ClusterConfig = DEFAULT_CLUSTER,
    arms: Sequence[str] = SHIPPED_ARMS,
    as_manifests: bool = False,
) -> list[Path]:
    """Compile every pipeline into `folder`.

    Args:
        folder: Made if it is absent.
        parameters: Defaults of `store_uri` and `config_uri`, so that a schedule need not repeat them.
        cluster: What their pods are given.
        arms: Whose training is a step of its own.
        as_manifests: As Pipeline and PipelineVersion, for a Kubeflow that keeps pipelines in Kubernetes.

    Returns:
        The files.
    """
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for name, pipeline in PIPELINES.items():
        path = folder / f"{name}.yaml"
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            compiled = pipeline(cluster, arms)
            Compiler().compile(compiled, str(path), pipeline_parameters=dict(parameters or {}))
            if as_manifests:
                kfp_name, digest = uploaded_name(name), digest_bytes(path.read_bytes())[:12]
                options = KubernetesManifestOptions(
                    pipeline_name=kfp_name,
                    pipeline_version_name=f"{kfp_name}-{digest}",
                    namespace=cluster.namespace,
                    include_pipeline_manifest=True,
                )
                Compiler().compile(
                    compiled,
                    str(path),
                    pipeline_parameters=dict(parameters or {}),
                    kubernetes_manifest_format=True,
                    kubernetes_manifest_options=options,
                )
        paths.append(path)
    return paths
