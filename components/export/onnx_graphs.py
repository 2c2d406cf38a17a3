"""ONNX graphs by architecture: exported once, and filled with the weights of every later checkpoint.

An exporter's run takes seconds, whatever the weights are. Whether the filled graph predicts what torch does is compared
on real rows at every export; where it does not, the graph is exported anew.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib.metadata import version
from typing import Any, ClassVar

import numpy as np
import onnx
from onnx import numpy_helper
from torch import Tensor, nn

from components.common import storage
from components.common.layout import Store
from components.common.manifests import Manifest, Step, find_current, verified_bytes, write_artifact

STEP = Step("export-graph")
_GRAPH_FILE = "graph.onnx"
_EXPORTERS = ("torch", "onnx", "onnxscript")


class GraphManifest(Manifest):
    """A graph of one architecture.

    Attributes:
        sources: By initializer, the weight or buffer that it is, and whether it is its transpose.
    """

    kind: ClassVar[str] = "onnx_graph"

    sources: dict[str, tuple[str, bool]]


class GraphCache:
    """The graphs that a store has."""

    def __init__(self, store: Store) -> None:
        """Look in a store."""
        self._store = store

    def filled(self, module: nn.Module, architecture: dict[str, Any]) -> bytes | None:
        """The graph of an architecture with a module's weights, as an export of the module would be; None if absent.

        Raises:
            InputError: If the graph's file is damaged.
        """
        origin = STEP.origin({}, _settings(architecture))
        uri = self._store.onnx_graph(origin.key)
        manifest = find_current(uri, GraphManifest, origin)
        if manifest is None:
            return None
        model = onnx.load_from_string(verified_bytes(uri, manifest, _GRAPH_FILE))
        state = module.state_dict()
        for initializer in model.graph.initializer:
            if initializer.name in manifest.sources:
                name, is_transposed = manifest.sources[initializer.name]
                value = _numbers(state[name], is_transposed)
                if list(value.shape) != list(initializer.dims):
                    return None
                initializer.raw_data = value.tobytes()
        return serialized(model)

    def exported(self, module: nn.Module, architecture: dict[str, Any], export: Callable[[], bytes]) -> bytes:
        """Export a module, and keep its graph."""
        content = export()
        origin = STEP.origin({}, _settings(architecture))
        manifest = GraphManifest(origin=origin, sources=_sources(onnx.load_from_string(content), module.state_dict()))

        def write(folder: str) -> None:
            storage.write_bytes(storage.join_uri(folder, _GRAPH_FILE), content)

        write_artifact(self._store.onnx_graph(origin.key), manifest, write)
        return content


def serialized(model: onnx.ModelProto) -> bytes:
    """A model as bytes, the same for the same model."""
    return bytes(model.SerializeToString(deterministic=True))


def _settings(architecture: dict[str, Any]) -> dict[str, Any]:
    return {**architecture, "exporters": {name: version(name) for name in _EXPORTERS}}


def _sources(model: onnx.ModelProto, state: dict[str, Tensor]) -> dict[str, tuple[str, bool]]:
    """Where each initializer's numbers come from; constants of the graph come from nowhere."""
    found = {}
    for initializer in model.graph.initializer:
        value = numpy_helper.to_array(initializer)
        if value.dtype == np.float32 and (source := _source(initializer.name, value, state)) is not None:
            found[initializer.name] = source
    return found


def _source(name: str, value: np.ndarray, state: dict[str, Tensor]) -> tuple[str, bool] | None:
    if name in state and np.array_equal(value, _numbers(state[name])):
        return name, False
    # Exporters fold the transposes of weights. What is all one number may be anything.
    for weight in state if value.size > 1 and (value != value.flat[0]).any() else ():
        for is_transposed in (False, True):
            numbers = _numbers(state[weight], is_transposed)
            if numbers.shape == value.shape and np.array_equal(value, numbers):
                return weight, is_transposed
    return None


def _numbers(weight: Tensor, is_transposed: bool = False) -> np.ndarray:
    numbers = weight.detach().cpu().numpy()
    return np.ascontiguousarray(numbers.T) if is_transposed else np.ascontiguousarray(numbers)
