"""Pretraining from edges to an artifact: killed, refreshed, in several processes."""

from __future__ import annotations

from datetime import date, timedelta
from functools import partial
from typing import Any

import pyarrow as pa
import pytest
import safetensors.torch
import torch

from components.common import parquet_files, storage
from components.common.errors import InputError
from components.common.layout import Store
from components.common.manifests import read_manifest, write_artifact
from components.features.edges import EDGES_FILE, EdgesManifest
from components.features.feature_list import FeatureConfig
from components.pretrain.config import PretrainConfig
from components.pretrain.entity_model import EntityModel, entity_features
from components.pretrain.pretrainer import Pretrainer
from components.pretrain.run import pretrain
from components.ranker.pretrained import KNOWN_FILE, PretrainedManifest
from components.tables.processes import Process
from pipelines.config import RunConfig
from tests.processes import in_processes
from tests.unit.pretrain.conftest import Logs, pretraining

BOTH = {"graph": {"epochs": 2, "batch_size": 128, "num_negatives": 32, "model": "distmult"}}


def run(logs: Logs, config: PretrainConfig | None = None, through: date | None = None) -> PretrainedManifest:
    own = logs.deployment.config
    return pretrain(logs.store.root, own.dataset, own.features, config or pretraining(), through or logs.days[-1])


def weights(store: Store, manifest: PretrainedManifest) -> dict[str, torch.Tensor]:
    return safetensors.torch.load(
        storage.read_bytes(storage.join_uri(store.pretrained(manifest.through), "model.safetensors"))
    )


def first_weights(features: FeatureConfig, config: PretrainConfig) -> torch.Tensor:
    torch.manual_seed(config.seed)
    return EntityModel(entity_features(features, config.edges.entities), config).embeddings.weight


def test_only_admitted_rows_move(own_edges):
    manifest = run(own_edges, pretraining(admit_after=4, **BOTH))
    features = own_edges.deployment.config.features
    moved = (weights(own_edges.store, manifest)["embeddings.weight"] != first_weights(features, pretraining())).any(1)
    known = parquet_files.read_parquet(storage.join_uri(own_edges.store.pretrained(manifest.through), KNOWN_FILE))
    starts, start = {}, 0
    for table, rows in manifest.features.tables.items():
        starts[table], start = start, start + rows
    trained = [starts[row["entity"]] + row["id"] for row in known.to_pylist()]
    assert sorted(trained) == moved.nonzero().view(-1).tolist()
    assert manifest.admitted["user_id"] < manifest.seen["user_id"]
    assert min(known["degree"].to_pylist()) >= 4


def test_epochs_are_judged_on_the_last_day_and_improve(own_edges):
    config = pretraining(contrastive={"epochs": 4, "batch_size": 64, "num_negatives": 64})
    manifest = run(own_edges, config)
    assert [(point["stage"], point["epoch"]) for point in manifest.epochs] == [("contrastive", n) for n in (1, 2, 3, 4)]
    losses = [point["loss"] for point in manifest.epochs]
    assert losses == sorted(losses, reverse=True)
    assert all(0 <= point["hit_at_3"] <= 1 for point in manifest.epochs)
    assert len(manifest.popularity) == 2 and manifest.first_day == own_edges.days[-1] - timedelta(days=7)


def test_same_edges_same_bytes_and_nothing_is_done_twice(own_edges, capsys):
    first = run(own_edges, pretraining(**BOTH))
    capsys.readouterr()
    assert run(own_edges, pretraining(**BOTH)) == first
    assert "nothing to do" in capsys.readouterr().out
    storage.remove(own_edges.store.pretrained(first.through))
    assert run(own_edges, pretraining(**BOTH)).content_digest == first.content_digest


@pytest.mark.parametrize("killed_after", [1, 20, 55])
def test_a_killed_run_goes_on_to_the_same_bits(own_edges, monkeypatch, killed_after):
    config = pretraining(resume_steps=3, **BOTH)
    expected = run(own_edges, config)
    storage.remove(own_edges.store.pretrained(expected.through))
    step, done = Pretrainer._step, 0

    def step_or_die(*arguments: Any) -> float:
        nonlocal done
        done += 1
        if done > killed_after:
            raise KeyboardInterrupt
        return step(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(Pretrainer, "_step", step_or_die)
        with pytest.raises(KeyboardInterrupt):
            run(own_edges, config)
    assert not own_edges.store.pretrained_days()
    found = run(own_edges, config)
    assert found == expected
    assert storage.list_names(own_edges.store.pretraining_points(expected.through)) == []


def test_a_refresh_starts_from_the_tables_before_it(own_edges):
    config = pretraining(num_days=4)
    before = run(own_edges, config, own_edges.days[-2])
    refreshed = run(own_edges, config)
    assert refreshed.parent == before.content_digest
    tables = [weights(own_edges.store, manifest)["embeddings.weight"] for manifest in (before, refreshed)]
    start = first_weights(own_edges.deployment.config.features, config)
    moved = [(tables[0] - start).norm(), (tables[1] - tables[0]).norm()]
    assert moved[1] < moved[0]
    # Another recipe has another space: no start.
    storage.remove(own_edges.store.pretrained(refreshed.through))
    assert run(own_edges, pretraining(num_days=4, seed=5)).parent == ""


def take_part(root: str, values: str, section: dict[str, Any], through: date, process: Process) -> None:
    own = RunConfig.model_validate_json(values)
    pretrain(root, own.dataset, own.features, PretrainConfig.parse(section, "pretrain"), through)


def test_two_processes_train_the_same_graph(own_edges, tmp_path):
    """Of one relation, without draws of their own, they take the same steps as one."""
    contrastive = {"epochs": 2, "batch_size": 64, "num_negatives": 0}
    config = pretraining(contrastive=contrastive, optimizer={"learning_rate": 1e-4, "tables": "lazy_adam"})
    alone = run(own_edges, config)
    tables = weights(own_edges.store, alone)
    storage.remove(own_edges.store.pretrained(alone.through))
    place = (own_edges.store.root, own_edges.deployment.config.model_dump_json(), config.model_dump(mode="json"))
    in_processes(__name__, 2, tmp_path / "meeting", partial(take_part, *place, own_edges.days[-1]))
    together = read_manifest(own_edges.store.pretrained(alone.through), PretrainedManifest)
    assert together.admitted == alone.admitted and len(together.epochs) == len(alone.epochs)
    # In-batch negatives are each process's own: the same pairs, but fewer negatives.
    start = first_weights(own_edges.deployment.config.features, config)
    ways = [found["embeddings.weight"] - start for found in (tables, weights(own_edges.store, together))]
    assert torch.equal(*(way.any(1) for way in ways))
    assert torch.cosine_similarity(*(way.reshape(1, -1) for way in ways)).item() > 0.7


def test_relation_without_edges_is_no_error(own_edges):
    for day in own_edges.days:
        uri = own_edges.store.edges(day)
        manifest = read_manifest(uri, EdgesManifest)
        rows = parquet_files.read_parquet(storage.join_uri(uri, EDGES_FILE))
        rest = rows.filter(pa.array(rows["relation"].to_numpy() != 1))

        def write(folder: str, rest: pa.Table = rest) -> None:
            parquet_files.write_parquet(storage.join_uri(folder, EDGES_FILE), rest)

        write_artifact(uri, manifest.model_copy(update={"files": ()}), write)
    manifest = run(own_edges, pretraining(**BOTH))
    assert [point["stage"] for point in manifest.epochs] == ["contrastive", "contrastive", "graph", "graph"]


def test_too_few_edges_are_named(own_edges):
    with pytest.raises(InputError, match=r"no \w+ is on 100000 edges of \['clicked', 'bought'\].*admit_after"):
        run(own_edges, pretraining(admit_after=100_000))


def test_divergence_names_the_step(own_edges):
    config = pretraining(optimizer={"learning_rate": 1e30, "table_multiplier": 1e8, "tables": "lazy_adam"})
    with pytest.raises(FloatingPointError, match=r"pretrain"):
        run(own_edges, config)
    assert not own_edges.store.pretrained_days()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"contrastive": None}, "neither contrastive nor graph"),
        (
            {"relations": [{"name": "x", "source": "item_id", "target": "campaign_id"}]},
            "no relation leads from user_id",
        ),
        ({"relations": [{"name": "x"}]}, "give action_type"),
        ({"relations": [{"name": "x", "source": "item_id"}]}, "name two columns"),
        ({"optimizer": {"tables": "adam"}}, "set lazy_adam"),
        ({"graph": {"model": "complex"}, "embedding_dim": 5}, "needs an even one"),
        ({"contrastive": {"temperature": 3.0}}, "outside of temperature_range"),
    ],
)
def test_sections_that_make_no_sense_are_refused(changes, message):
    with pytest.raises(InputError, match=message):
        pretraining(**changes)


def test_relations_must_join_columns_with_tables(edges):
    config = edges.deployment.config
    for relation, message in (
        ({"name": "x", "action_type": "click", "target": "surface"}, "no identifier of actions"),
        ({"name": "x", "source": "item_id", "target": "quality"}, "no identifier of impressions"),
    ):
        section = pretraining(relations=[{"name": "bought", "action_type": "checkout"}, relation])
        with pytest.raises(ValueError, match=message):
            section.edges.check_against(config.dataset)
