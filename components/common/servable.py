"""What a published version consists of."""

from __future__ import annotations

from components.common.digests import digest_json
from components.common.manifests import Manifest

RANKER_FILE = "ranker.onnx"
TABLES_FILE = "tables.int4"
ONNX_INPUTS = (
    "categorical_halves",
    "categorical_scale",
    "categorical_bias",
    "dense",
    "sequence_halves",
    "sequence_scale",
    "sequence_bias",
    "lengths",
)
ONNX_OUTPUT = "probabilities"


def version_digest(manifest: Manifest) -> str:
    """Names a version by its content."""
    return digest_json(manifest.model_dump(mode="json"))
