"""What a published version consists of."""

from __future__ import annotations

from components.common.digests import digest_json
from components.common.manifests import Manifest

RANKER_FILE = "ranker.onnx"
TABLES_FILE = "tables.int4"
# Packed rows, numbers as they are, packed rows of each user's actions, how many these are, and each row's user.
ONNX_INPUTS = ("categorical_rows", "dense", "sequence_rows", "lengths", "users")
ONNX_OUTPUT = "probabilities"


def version_digest(manifest: Manifest) -> str:
    """Names a version by its content."""
    return digest_json(manifest.model_dump(mode="json"))
