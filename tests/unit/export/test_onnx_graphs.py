"""Graphs that are exported once and filled with other weights, against exports of those weights."""

from __future__ import annotations

from pathlib import Path

import onnx
import pytest
import torch

from components.common import storage
from components.common.layout import Store
from components.common.manifests import read_manifest, write_artifact
from components.export import run
from components.export.config import ExportConfig
from components.export.onnx_export import export_onnx, packed_inputs
from components.export.onnx_graphs import GraphCache, GraphManifest
from components.export.served_ranker import PackedRanker, ServedRanker
from components.ranker.config import ModelConfig
from components.ranker.ranker import Ranker
from components.version.manifest import ONNX_INPUTS, VersionManifest
from components.version.table_packing import pack_tables
from tests.unit.export.served import Unexported

MODELS = {
    "plain": {"embedding_dim": 8, "sequence_dim": 8, "hidden_sizes": [16], "head_size": 4},
    "dhen": {"embedding_dim": 8, "sequence_dim": 8, "dhen": {"num_layers": 1, "hidden_size": 8}, "hidden_sizes": [16]},
}


def packed(features, model: dict, seed: int) -> tuple[PackedRanker, tuple[torch.Tensor, ...]]:
    """A ranker whose weights are all its own, at a rate of its own; of seed 0, all are 1."""
    torch.manual_seed(seed)
    ranker = Ranker(features, ModelConfig.parse(model, "model")).eval()
    with torch.no_grad():
        for parameter in ranker.net.parameters():
            parameter.normal_() if seed else parameter.fill_(1)
        ranker.net.normalize.mean.normal_()
    _, specs = pack_tables({name: rows.numpy() for name, rows in ranker.served_tables().items()}, 1.0, {})
    return PackedRanker(ServedRanker(ranker.net, 0.5 / (1 + seed)), features, specs), packed_inputs(features, specs)


@pytest.mark.parametrize("model", [*MODELS])
def test_a_filled_graph_is_the_export_of_its_weights(small_config, tmp_path, model):
    cache = GraphCache(Store(str(tmp_path)))
    alike, first, second = (packed(small_config.features, MODELS[model], seed) for seed in range(3))

    def export(module: torch.nn.Module) -> bytes:
        return export_onnx(module, alike[1], ONNX_INPUTS, ExportConfig())

    exports = [export(ranker) for ranker, _ in (first, second)]
    assert cache.filled(first[0], {"model": model}) is None
    assert cache.made(alike[0], {"model": model}, export) not in (None, *exports)
    assert [cache.filled(ranker, {"model": model}) for ranker, _ in (first, second)] == exports
    assert exports[0] != exports[1]
    assert cache.filled(second[0], {"model": "another"}) is None
    second[0].ranker.net.renamed = torch.nn.Linear(1, 1)
    del second[0].ranker.net.wide
    assert cache.filled(second[0], {"model": model}) is None


def test_a_graph_that_does_not_predict_what_torch_does_is_exported_anew(unexported: Unexported, monkeypatch):
    expected = unexported.export()
    graphs = Path(unexported.deployment.store.root, "exports", "graphs")
    (folder,) = graphs.iterdir()
    manifest = read_manifest(str(folder), GraphManifest)
    content = storage.read_bytes(storage.join_uri(str(folder), "graph.onnx"))
    calls = []

    def noted(*arguments) -> bytes:
        calls.append(arguments)
        return export_onnx(*arguments)

    monkeypatch.setattr(run, "export_onnx", noted)

    def again() -> VersionManifest:
        storage.remove(unexported.uri)
        return unexported.export()

    assert again() == expected and not calls
    damaged = damage(content, manifest)
    write_artifact(
        str(folder),
        manifest.model_copy(update={"sources": {}}),
        lambda staged: storage.write_bytes(storage.join_uri(staged, "graph.onnx"), damaged),
    )
    assert again() == expected and len(calls) == 1
    assert read_manifest(str(folder), GraphManifest) == manifest
    assert again() == expected and len(calls) == 1


def damage(content: bytes, manifest: GraphManifest) -> bytes:
    """The graph with another bias in its heads."""
    model = onnx.load_from_string(content)
    name = next(name for name in manifest.sources if name.endswith("wide.bias"))
    initializer = next(one for one in model.graph.initializer if one.name == name)
    initializer.raw_data = bytes(len(initializer.raw_data))
    return bytes(model.SerializeToString(deterministic=True))
