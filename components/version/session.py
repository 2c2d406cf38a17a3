"""ONNX Runtime sessions of rankers."""

from __future__ import annotations

from pathlib import Path

import onnxruntime

from components.common.errors import InputError
from components.version.manifest import ONNX_INPUTS, ONNX_OUTPUT

_DRIVER = Path("/proc/driver/nvidia/version")


def start_session(onnx: bytes, where: str, num_threads: int = 0) -> onnxruntime.InferenceSession:
    """Start a ranker, on a GPU where there is one.

    Args:
        onnx: The model.
        where: Names its file in errors.
        num_threads: Of one run; 0 for one a core.

    Raises:
        InputError: If it is not a ranker of this release.
    """
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = num_threads
    providers = ["CPUExecutionProvider"]
    # ONNX Runtime lists the provider wherever it was built in, and complains at length where there is no driver.
    if "CUDAExecutionProvider" in onnxruntime.get_available_providers() and _DRIVER.exists():
        providers.insert(0, "CUDAExecutionProvider")
    try:
        session = onnxruntime.InferenceSession(onnx, options, providers=providers)
    except Exception as error:
        # ONNX Runtime's exceptions have no base of their own.
        raise InputError(f"{where}: not a model that ONNX Runtime can run ({str(error).splitlines()[0]})") from error
    signature = (
        tuple(value.name for value in session.get_inputs()),
        tuple(value.name for value in session.get_outputs()),
    )
    if signature != (ONNX_INPUTS, (ONNX_OUTPUT,)):
        raise InputError(f"{where}: takes {list(signature[0])}, not {list(ONNX_INPUTS)}; export the version again")
    return session
