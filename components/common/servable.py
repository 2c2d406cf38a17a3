"""What a published version consists of."""

from __future__ import annotations

from components.common.digests import digest_json
from components.common.manifests import Manifest

RANKER_FILE = "ranker.onnx"
TABLES_FILE = "tables.safetensors"
ONNX_INPUTS = ("categorical", "dense", "sequence", "lengths")
ONNX_OUTPUT = "probabilities"


def version_digest(manifest: Manifest) -> str:
    """Names a version by its content."""
    return digest_json(manifest.model_dump(mode="json"))
