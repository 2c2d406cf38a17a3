"""ONNX Runtime's settings on the serving benchmark's ranker, each beside those that servers use; one figure a line.

Figures are of a run's processor time, as ratios: 25th percentiles, the settings taking turns.
"""

from __future__ import annotations

import random
import sys
import tempfile
import time
from typing import Any

import numpy as np
import onnxruntime

from components.common.layout import Store
from components.version.manifest import ONNX_INPUTS, ONNX_OUTPUT
from components.version.request import Limits
from components.version.version import Version
from tests.benchmarks.serve_figures import say
from tests.benchmarks.serve_version import Requests, write_version

SECONDS = 8.0
_LEVELS = onnxruntime.GraphOptimizationLevel
_ATTRIBUTES: dict[str, dict[str, Any]] = {
    "as_served_again": {},
    "basic_optimisation": {"graph_optimization_level": _LEVELS.ORT_ENABLE_BASIC},
    "no_arena": {"enable_cpu_mem_arena": False},
    "no_memory_pattern": {"enable_mem_pattern": False},
    "two_threads": {"intra_op_num_threads": 2},
    "parallel_nodes": {"execution_mode": onnxruntime.ExecutionMode.ORT_PARALLEL, "inter_op_num_threads": 2},
}
_ENTRIES = {
    "denormal_as_zero": "session.set_denormal_as_zero",
    "no_prepacking": "session.disable_prepacking",
}


def session(content: bytes, entry: str = "", **attributes: Any) -> onnxruntime.InferenceSession:
    """A session on the CPU with one thread and some settings."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level, options.intra_op_num_threads = 3, 1
    for name, value in attributes.items():
        setattr(options, name, value)
    if entry:
        options.add_session_config_entry(entry, "1")
    return onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])


def in_half_precision(content: bytes) -> bytes:
    """A ranker whose net works in float16, by ONNX Runtime's own converter; inputs and answers stay as they are."""
    import onnx
    from onnxruntime.transformers.float16 import convert_float_to_float16

    return convert_float_to_float16(onnx.load_from_string(content), keep_io_types=True).SerializeToString()


def prepared(version: Version, batch: int) -> dict[str, np.ndarray]:
    """What a request becomes."""
    contract, tables, features = version.contract(), version.tables(), version.manifest.features
    request = contract.read(Requests(batch).tensors(), Limits())
    categorical, sequence, lengths = contract.ids(request)
    inputs = (
        tables.look_up(features.categorical_tables, categorical),
        contract.dense(request),
        tables.look_up(features.sequence_tables, sequence),
        lengths,
        np.zeros(batch, dtype=np.int64),
    )
    return dict(zip(ONNX_INPUTS, inputs, strict=True))


def compare(
    name: str, other: onnxruntime.InferenceSession, served: onnxruntime.InferenceSession, version: Version
) -> None:
    """Print the ratio of a session's processor time to that of the one that is served, and how they differ."""
    for batch in (1, 100):
        inputs = prepared(version, batch)
        times: tuple[list[float], list[float]] = ([], [])
        answers = [np.asarray(one.run([ONNX_OUTPUT], inputs)[0]) for one in (other, served)]
        end = time.monotonic() + SECONDS / 2
        while time.monotonic() < end:
            for place in random.sample((0, 1), 2):
                started = time.process_time()
                (other, served)[place].run([ONNX_OUTPUT], inputs)
                times[place].append(time.process_time() - started)
        say(f"serve.session.{name}.cpu_ratio_b{batch}", np.percentile(times[0], 25) / np.percentile(times[1], 25), 2)
        say(f"serve.session.{name}.difference_b{batch}", float(np.abs(answers[0] - answers[1]).max()), 7)


def main() -> None:
    """Compare all of them, one after the other."""
    with tempfile.TemporaryDirectory() as folder:
        store = Store(sys.argv[1] if len(sys.argv) > 1 else folder)
        digest = store.versions()[0] if store.versions() else write_version(store, "local")
        version = Version.published(store, digest)
        content = version.onnx()
        served = session(content)
        for name, attributes in _ATTRIBUTES.items():
            compare(name, session(content, **attributes), served, version)
        for name, entry in _ENTRIES.items():
            compare(name, session(content, entry), served, version)
        # With more optimisations than these, ONNX Runtime 1.31.1 ends with a segmentation fault on a CPU.
        half = session(in_half_precision(content), **_ATTRIBUTES["basic_optimisation"])
        compare("half_precision_net", half, served, version)


if __name__ == "__main__":
    main()
