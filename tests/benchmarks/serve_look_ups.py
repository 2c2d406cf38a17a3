"""Look-ups in packed tables against float16 ones and against torch's kernel; one figure a line."""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np
import onnx
import onnxruntime
import torch

from components.version.version import Version
from tests.benchmarks.serve_figures import median_ms, say
from tests.benchmarks.serve_half import HalfTables
from tests.benchmarks.serve_version import DIM, FEATURES, NUM_ROWS


def look_ups(version: Version) -> None:
    """One thread: packed rows against float16 by the same gather, by one of ONNX Runtime a table, and torch's kernel.

    The last one decodes. Ids are spread evenly, so that hardly any row is in a cache, or Zipf with exponent 1.25.
    """
    packed, half = version.tables(), HalfTables(version)
    packed.warm()
    torch.set_num_threads(1)
    tables = FEATURES.categorical_tables
    content = torch.from_numpy(np.array(packed._rows[packed.layout]))
    parts = [content[spec.first_byte // 20 :][:NUM_ROWS] for spec in version.manifest.tables[: len(tables)]]
    draw, kernel = np.random.default_rng(1), torch.ops.quantized.embedding_bag_4bit_rowwise_offsets

    def with_torch(ids: np.ndarray) -> None:
        offsets = torch.arange(len(ids))
        for number, column in enumerate(torch.from_numpy(np.ascontiguousarray(ids.T))):
            kernel(parts[number], column, offsets)

    session = _gathers(half, len(tables))

    def with_onnxruntime(ids: np.ndarray) -> None:
        session.run(None, {f"ids{number}": column for number, column in enumerate(np.ascontiguousarray(ids.T))})

    variants: dict[str, Callable[[np.ndarray], object]] = {
        "int4": lambda ids: packed.look_up(tables, ids),
        "float16": lambda ids: half.look_up(tables, ids),
        "torch": with_torch,
        "onnxruntime": with_onnxruntime,
    }
    for spread in ("even", "zipf"):
        for batch in (100, 500, 2000):
            times: dict[str, list[float]] = {name: [] for name in variants}
            for _ in range(150):
                for name in sorted(variants, key=lambda _: draw.random()):
                    uniform = draw.random((batch, len(tables)))
                    rank = NUM_ROWS * uniform if spread == "even" else ((NUM_ROWS**-0.25 - 1) * uniform + 1) ** -4 - 1
                    ids = rank.astype(np.int64)
                    started = time.perf_counter()
                    variants[name](ids)
                    times[name].append(time.perf_counter() - started)
            found = {name: median_ms(values) for name, values in times.items()}
            say(f"serve.lookup.{spread}.int4_ms_b{batch}", found["int4"])
            say(f"serve.lookup.{spread}.int4_ratio_b{batch}", found["int4"] / found["float16"])
            for other in ("torch", "onnxruntime"):
                say(f"serve.lookup.{spread}.int4_ratio_to_{other}_b{batch}", found["int4"] / found[other])
            if (spread, batch) == ("even", 500):
                say("serve.lookup.int4_ratio", found["int4"] / found["float16"])


def _gathers(half: HalfTables, count: int) -> onnxruntime.InferenceSession:
    """Float16 tables as a graph has them: a Gather each."""
    rows, nodes, inputs, outputs, tables = half._rows[half.layout].view(np.float16), [], [], [], []
    for number in range(count):
        part = rows[number * NUM_ROWS :][:NUM_ROWS]
        tables.append(onnx.numpy_helper.from_array(np.ascontiguousarray(part), f"table{number}"))
        nodes.append(onnx.helper.make_node("Gather", [f"table{number}", f"ids{number}"], [f"rows{number}"]))
        inputs.append(onnx.helper.make_tensor_value_info(f"ids{number}", onnx.TensorProto.INT64, ["n"]))
        outputs.append(onnx.helper.make_tensor_value_info(f"rows{number}", onnx.TensorProto.FLOAT16, ["n", DIM]))
    graph = onnx.helper.make_graph(nodes, "gathers", inputs, outputs, tables)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 20)], ir_version=10)
    return onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
