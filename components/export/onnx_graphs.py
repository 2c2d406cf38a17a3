"""ONNX graphs by architecture: exported once, and filled with the weights of every checkpoint.

An exporter's run takes seconds, whatever the weights are. What is exported once is a copy of the module whose numbers
are all drawn, so that each number of the graph shows which weight it was; with a checkpoint's own, a constant may equal
one by chance, and equal weights become one. Whether the filled graph predicts what torch does is compared on real rows
at every export.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from importlib.metadata import version
from typing import Any, ClassVar

import numpy as np
import onnx
import torch
from onnx import numpy_helper
from torch import Tensor, nn

from components.common import storage
from components.common.config import Config
from components.common.layout import Store
from components.common.manifests import Manifest, Step, find_current, verified_bytes, write_artifact

STEP = Step("export-graph", 3)
_GRAPH_FILE = "graph.onnx"
_EXPORTERS = ("torch", "onnx", "onnxscript")


class Source(Config):
    """Where an initializer's numbers come from; exporters fold transposes of weights, and single numbers out of them.

    Attributes:
        name: The weight or buffer.
        is_transposed: Whether it is its transpose.
        place: Which of its numbers it is, if it is one only.
    """

    name: str
    is_transposed: bool = False
    place: int | None = None

    def numbers(self, state: dict[str, Tensor]) -> np.ndarray | None:
        """The numbers in a state; None if that has another form."""
        if self.name not in state:
            return None
        numbers = state[self.name].detach().cpu().numpy()
        if self.place is not None:
            return numbers.reshape(-1)[self.place : self.place + 1]
        return np.ascontiguousarray(numbers.T if self.is_transposed else numbers)


class GraphManifest(Manifest):
    """A graph of one architecture.

    Attributes:
        sources: By initializer; those that are none are constants of the graph.
    """

    kind: ClassVar[str] = "onnx_graph"

    sources: dict[str, Source]


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
        return _filled(verified_bytes(uri, manifest, _GRAPH_FILE), manifest.sources, module)

    def made(
        self, module: nn.Module, architecture: dict[str, Any], export: Callable[[nn.Module], bytes]
    ) -> bytes | None:
        """Export the graph of an architecture, keep it, and fill it; None if it does not fit the module."""
        drawn = _with_drawn_numbers(module)
        content = export(drawn)
        sources = _sources(onnx.load_from_string(content), drawn.state_dict())
        origin = STEP.origin({}, _settings(architecture))

        def write(folder: str) -> None:
            storage.write_bytes(storage.join_uri(folder, _GRAPH_FILE), content)

        write_artifact(self._store.onnx_graph(origin.key), GraphManifest(origin=origin, sources=sources), write)
        return _filled(content, sources, module)


def serialized(model: onnx.ModelProto) -> bytes:
    """A model as bytes, the same for the same model."""
    return bytes(model.SerializeToString(deterministic=True))


def _settings(architecture: dict[str, Any]) -> dict[str, Any]:
    return {**architecture, "exporters": {name: version(name) for name in _EXPORTERS}}


def _filled(content: bytes, sources: dict[str, Source], module: nn.Module) -> bytes | None:
    """A graph with a module's weights; None if a weight is missing, or has another form."""
    model = onnx.load_from_string(content)
    state = module.state_dict()
    for initializer in model.graph.initializer:
        if initializer.name in sources:
            value = sources[initializer.name].numbers(state)
            if value is None or value.size != math.prod(initializer.dims):
                return None
            initializer.raw_data = value.tobytes()
    return serialized(model)


def _with_drawn_numbers(module: nn.Module) -> nn.Module:
    """A copy whose float32 numbers are drawn from 1 to 2, all odd in their last bit, as no round constant is."""
    drawn, generator = copy.deepcopy(module), torch.Generator().manual_seed(0)
    for values in drawn.state_dict().values():
        if values.dtype == torch.float32:
            values.uniform_(1, 2, generator=generator).view(torch.int32).bitwise_or_(1)
    return drawn


def _sources(model: onnx.ModelProto, state: dict[str, Tensor]) -> dict[str, Source]:
    found = {}
    for initializer in model.graph.initializer:
        value = numpy_helper.to_array(initializer)
        if value.dtype == np.float32 and (source := _source(initializer.name, value, state)) is not None:
            found[initializer.name] = source
    return found


def _source(name: str, value: np.ndarray, state: dict[str, Tensor]) -> Source | None:
    """The one source that has these numbers, if it is certain."""
    if name in state:
        return Source(name=name)
    if value.size == 1:
        places = [
            Source(name=weight, place=int(place))
            for weight, numbers in state.items()
            for place in np.flatnonzero(numbers.detach().cpu().numpy().reshape(-1) == value.reshape(-1)[0])
        ]
        return places[0] if len(places) == 1 else None
    for weight in state:
        for source in (Source(name=weight), Source(name=weight, is_transposed=True)):
            numbers = source.numbers(state)
            if numbers is not None and numbers.shape == value.shape and np.array_equal(value, numbers):
                return source
    return None
