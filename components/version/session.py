"""ONNX Runtime sessions of rankers."""

from __future__ import annotations

from pathlib import Path

import onnxruntime

from components.common.errors import InputError
from components.version.manifest import ONNX_INPUTS, ONNX_OUTPUT

# It would look for a place to keep an id of this machine in, which pods do not have.
onnxruntime.disable_telemetry_events()

GPU_PROVIDER = "CUDAExecutionProvider"
_DRIVER = Path("/proc/driver/nvidia/version")


def start_session(
    onnx: bytes, where: str, num_threads: int = 0, require_gpu: bool = False
) -> onnxruntime.InferenceSession:
    """Start a ranker, on a GPU where there is one; ONNX Runtime takes the CPU if the GPU cannot be used.

    Args:
        onnx: The model.
        where: Names its file in errors.
        num_threads: Of one run; 0 for one a core.
        require_gpu: Whether it must not run on the CPU.

    Raises:
        InputError: If it is not a ranker of this release, or the GPU cannot be used.
    """
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = num_threads
    providers = ["CPUExecutionProvider"]
    if has_gpu():
        providers.insert(0, GPU_PROVIDER)
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
    if require_gpu and provider_of(session) != GPU_PROVIDER:
        raise InputError(
            f"{where}: runs on {provider_of(session)}, and require_gpu is set; ONNX Runtime has "
            f"{onnxruntime.get_available_providers()}, NVIDIA's driver is {'there' if _DRIVER.exists() else 'absent'}"
        )
    return session


def has_gpu() -> bool:
    """Whether ONNX Runtime may try a GPU: it lists the provider wherever that was built in, driver or not."""
    return GPU_PROVIDER in onnxruntime.get_available_providers() and _DRIVER.exists()


def provider_of(session: onnxruntime.InferenceSession) -> str:
    """The execution provider that a session's nodes are put on first."""
    return str(session.get_providers()[0])
