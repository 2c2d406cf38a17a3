"""What a published version consists of."""

from __future__ import annotations

from components.common.digests import digest_json
from components.common.manifests import Manifest

RANKER_FILE = "ranker.onnx"
TABLES_FILE = "tables.int4"
# Tables and ranker in one, where it is asked for.
PREDICTOR_FILE = "predictor.onnx"
# Packed rows, numbers as they are, packed rows of each user's actions, how many these are, and each row's user.
ONNX_INPUTS = ("categorical_rows", "dense", "sequence_rows", "lengths", "users")
PREDICTOR_INPUTS = ("categorical_ids", "dense", "sequence_ids", "lengths")
ONNX_OUTPUT = "probabilities"


def version_digest(manifest: Manifest) -> str:
    """Names a version by its content."""
    return digest_json(manifest.model_dump(mode="json"))
