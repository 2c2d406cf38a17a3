"""Copies of published versions: as good, or with a fault that no gate sees, which shifts, fails or slows answers."""

from __future__ import annotations

import shutil
from collections.abc import Callable

import numpy as np
import onnx
from onnx import helper, numpy_helper

from components.common import storage
from components.common.layout import Store
from components.common.manifests import describe_file, manifest_path
from components.version.manifest import ONNX_OUTPUT, RANKER_FILE
from components.version.version import Version

_SIZE, _PRODUCTS = 512, 12


def publish_spoiled(store: Store, digest: str, fault: str) -> str:
    """Publish a copy of a version with a fault, one of `FAULTS`; returns its digest."""

    def spoil(graph: onnx.GraphProto) -> None:
        for node in graph.node:
            node.output[:] = ["unspoiled" if name == ONNX_OUTPUT else name for name in node.output]
        FAULTS[fault](graph)

    return _publish_changed(store, digest, spoil)


def publish_twin(store: Store, digest: str, mark: str) -> str:
    """Publish a copy of a version that answers the same; returns its digest, another one for each mark."""

    def write_mark(graph: onnx.GraphProto) -> None:
        graph.doc_string = mark

    return _publish_changed(store, digest, write_mark)


def _publish_changed(store: Store, digest: str, change: Callable[[onnx.GraphProto], None]) -> str:
    good, staged = Version.published(store, digest), store.version("staged")
    shutil.copytree(good.uri, staged)
    model = onnx.load_from_string(good.onnx())
    change(model.graph)
    storage.write_bytes(storage.join_uri(staged, RANKER_FILE), model.SerializeToString())
    files = tuple(describe_file(staged, entry.name) for entry in good.manifest.files)
    manifest = good.manifest.model_copy(update={"files": files})
    storage.write_bytes(manifest_path(staged), manifest.to_bytes())
    changed = Version.open(staged).digest
    shutil.move(staged, store.version(changed))
    return changed


def _constant(graph: onnx.GraphProto, name: str, values: np.ndarray) -> str:
    graph.initializer.append(numpy_helper.from_array(values, name))
    return name


def _shift(graph: onnx.GraphProto) -> None:
    half = _constant(graph, "spoiled_half", np.array(0.5, dtype=np.float32))
    graph.node.append(helper.make_node("Mul", ["unspoiled", half], [ONNX_OUTPUT]))


def _unknown(graph: onnx.GraphProto) -> None:
    nan = _constant(graph, "spoiled_nan", np.array(np.nan, dtype=np.float32))
    graph.node.append(helper.make_node("Mul", ["unspoiled", nan], [ONNX_OUTPUT]))


def _fail(graph: onnx.GraphProto) -> None:
    """At requests that have not two candidates, as the one at loading has."""
    shape = _constant(graph, "spoiled_shape", np.array([2, -1], dtype=np.int64))
    graph.node.append(helper.make_node("Reshape", ["unspoiled", shape], ["spoiled_two"]))
    original = helper.make_node("Add", ["unspoiled", "spoiled_two"], ["spoiled_sum"])
    half = _constant(graph, "spoiled_half", np.array(0.5, dtype=np.float32))
    graph.node.extend([original, helper.make_node("Mul", ["spoiled_sum", half], [ONNX_OUTPUT])])


def _slow_down(graph: onnx.GraphProto) -> None:
    """By products of matrices that come to nothing, but depend on the input, so that they are made each time."""
    square = _constant(graph, "spoiled_square", np.full((_SIZE, _SIZE), 1 / _SIZE, dtype=np.float32))
    zero = _constant(graph, "spoiled_zero", np.array(0.0, dtype=np.float32))
    nodes = [
        helper.make_node("ReduceMean", ["unspoiled"], ["spoiled_mean"], keepdims=0),
        helper.make_node("Add", [square, "spoiled_mean"], ["spoiled_0"]),
    ]
    for number in range(_PRODUCTS):
        nodes.append(helper.make_node("MatMul", [f"spoiled_{number}", square], [f"spoiled_{number + 1}"]))
    nodes += [
        helper.make_node("ReduceMean", [f"spoiled_{_PRODUCTS}"], ["spoiled_all"], keepdims=0),
        helper.make_node("Mul", ["spoiled_all", zero], ["spoiled_nothing"]),
        helper.make_node("Add", ["unspoiled", "spoiled_nothing"], [ONNX_OUTPUT]),
    ]
    graph.node.extend(nodes)


FAULTS: dict[str, Callable[[onnx.GraphProto], None]] = {
    "shifted": _shift,
    "unknown": _unknown,
    "failing": _fail,
    "slow": _slow_down,
}
