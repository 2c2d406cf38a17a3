"""What a published version consists of."""

from __future__ import annotations

VERSION_KIND = "version"
RANKER_FILE = "ranker.onnx"
TABLES_FILE = "tables.safetensors"
ONNX_INPUTS = ("categorical", "dense", "sequence", "lengths")
ONNX_OUTPUT = "probabilities"
