"""Writes the pipelines' YAML for Kubeflow."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from kfp.compiler import Compiler

from pipelines import resources
from pipelines.training import batch_training, daily_training

PIPELINES = {"batch_training": batch_training, "daily_training": daily_training}


def compile_pipelines(folder: Path, parameters: Mapping[str, Any] | None = None, image_prefix: str = "") -> list[Path]:
    """Compile every pipeline into `folder`.

    Args:
        folder: Made if it is absent.
        parameters: Defaults of `store_uri` and `config_uri`, so that a schedule need not repeat them.
        image_prefix: Put in front of the images of `resources.STEPS`, e.g. a registry's address and a slash.

    Returns:
        The files.
    """
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for name, pipeline in PIPELINES.items():
        path = folder / f"{name}.yaml"
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            Compiler().compile(pipeline, str(path), pipeline_parameters=dict(parameters or {}))
        if image_prefix:
            text = path.read_text()
            for image in (resources.BEAM_IMAGE, resources.TRAIN_IMAGE):
                text = text.replace(f"image: {image}", f"image: {image_prefix}{image}")
            path.write_text(text)
        paths.append(path)
    return paths
