"""Writes the pipelines' YAML for Kubeflow."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from kfp.compiler import Compiler

from components.common.ledger import ARMS
from pipelines.cluster import DEFAULT_CLUSTER, ClusterConfig
from pipelines.training import batch_training, daily_training

PIPELINES = {"batch_training": batch_training, "daily_training": daily_training}


def compile_pipelines(
    folder: Path,
    parameters: Mapping[str, Any] | None = None,
    cluster: ClusterConfig = DEFAULT_CLUSTER,
    arms: Sequence[str] = ARMS,
) -> list[Path]:
    """Compile every pipeline into `folder`.

    Args:
        folder: Made if it is absent.
        parameters: Defaults of `store_uri` and `config_uri`, so that a schedule need not repeat them.
        cluster: What their pods are given.
        arms: Whose training is a step of its own.

    Returns:
        The files.
    """
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for name, pipeline in PIPELINES.items():
        path = folder / f"{name}.yaml"
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            Compiler().compile(pipeline(cluster, arms), str(path), pipeline_parameters=dict(parameters or {}))
        paths.append(path)
    return paths
