"""Rankers that start from pretrained tables."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch

from components.collect_edges.run import collect_edges
from components.common import storage
from components.common.errors import InputError
from components.common.manifests import read_manifest
from components.features.examples import TRAINING, read_examples
from components.features.feature_list import FeatureConfig
from components.pretrain.run import pretrain
from components.ranker.checkpoint import TrainedRanker
from components.ranker.config import PretrainedConfig
from components.ranker.dataset import tensors_of
from components.ranker.pretrained import PretrainedManifest, find_pretrained, start_from
from components.ranker.ranker import Ranker
from components.train.config import TrainConfig
from components.train.one_model import train_batch, train_day
from components.train.trainer import Trainer
from components.train.training_state import load_state, new_state
from tests.unit.pretrain.conftest import Logs, pretraining

GRAPH = {"graph": {"epochs": 1, "batch_size": 128, "num_negatives": 32}}


@pytest.fixture(scope="module")
def pretrained(edges: Logs, tmp_path_factory) -> Logs:
    """Tables through the last batch day, beside the batch's examples; not to be written to."""
    root = tmp_path_factory.mktemp("pretrained") / "store"
    shutil.copytree(edges.store.root, root)
    shutil.copytree(Path(edges.deployment.store.root, "examples"), root / "examples")
    logs = Logs(edges.deployment, type(edges.store)(str(root)), edges.days)
    own = logs.deployment.config
    # With a campaign table in front of which others lie, and ids that were on too few edges.
    pretrain(logs.store.root, own.dataset, own.features, pretraining(admit_after=3, **GRAPH), logs.days[-1])
    return logs


def recipe(logs: Logs, mode: str = "finetuned", **changes) -> TrainConfig:
    values = logs.deployment.config.arms["sparse_optimizer"].model_dump()
    values["optimizer"] = {"learning_rate": 1e-3, "tables": "lazy_adam"}
    return TrainConfig.parse({**values, "pretrained": {"mode": mode, **changes}}, "train")


def tables_of(state) -> dict[str, torch.Tensor]:
    return {name: table.clone() for name, table in state.model.embeddings.tables().items()}


def test_trained_rows_take_the_rankers_scale_and_others_stay(pretrained):
    features = pretrained.deployment.config.features
    config = PretrainedConfig(tables=("item_id", "campaign_id"), scale=2.0)
    manifest = read_manifest(pretrained.store.pretrained(pretrained.days[-1]), PretrainedManifest)
    state = new_state(features, recipe(pretrained), lineage(pretrained))
    before = tables_of(state)
    replaced = start_from(state.model.embeddings, state.of_model.held, features, pretrained.store, manifest, config)
    after = tables_of(state)
    for name, table in after.items():
        changed = (table != before[name]).any(1)
        assert changed.sum() == replaced.get(name, 0), name
        if name in config.tables:
            rms = table[changed].square().mean().sqrt()
            assert rms == pytest.approx(2.0 * state.model.embeddings.deviation, rel=1e-4)
    assert 0 < replaced["item_id"] == manifest.admitted["item_id"] < manifest.seen["item_id"]


def lineage(logs: Logs):
    from components.common.lineage import Lineage

    day = logs.days[-1]
    return Lineage(arm="x", first_day=day, trained_through=day, parent="", step=0, negative_keep_rate=1.0)


@pytest.mark.parametrize("mode", ["finetuned", "frozen"])
def test_frozen_tables_stay_and_finetuned_ones_are_trained(pretrained, tmp_path, mode):
    shutil.copytree(pretrained.store.root, tmp_path / "store")
    store, own = type(pretrained.store)(str(tmp_path / "store")), pretrained.deployment
    config = recipe(pretrained, mode)
    features = own.config.features
    train_batch(store.root, "x", features, config, own.batch_days)
    state, _ = load_state(store, "x", own.batch_days[-1])
    fresh = new_state(features, config, lineage(pretrained))
    manifest = read_manifest(store.pretrained(pretrained.days[-1]), PretrainedManifest)
    assert config.pretrained is not None
    start_from(fresh.model.embeddings, fresh.of_model.held, features, store, manifest, config.pretrained)
    after, start = tables_of(state), tables_of(fresh)
    assert torch.equal(after["item_id"], start["item_id"]) == (mode == "frozen")
    assert not torch.equal(after["campaign_id"], start["campaign_id"])
    assert state.optimizer.tables is not None
    # A day more, from the checkpoint alone: the tables that it started from are of no use any more.
    storage.remove(store.pretrained(pretrained.days[-1]))
    train_day(store.root, "x", features, config, own.scored_day, own.batch_days[-1])
    later, _ = load_state(store, "x", own.scored_day)
    assert torch.equal(tables_of(later)["item_id"], start["item_id"]) == (mode == "frozen")


def test_gated_rows_are_mixed_with_the_pretrained_ones(pretrained, tmp_path):
    shutil.copytree(pretrained.store.root, tmp_path / "store")
    store, own = type(pretrained.store)(str(tmp_path / "store")), pretrained.deployment
    features, config = own.config.features, recipe(pretrained, "gated")
    train_batch(store.root, "x", features, config, own.batch_days)
    storage.remove(store.pretrained(pretrained.days[-1]))
    train_day(store.root, "x", features, config, own.scored_day, own.batch_days[-1])
    state, _ = load_state(store, "x", own.scored_day)
    tables, gates = tables_of(state), state.model.net.gates
    assert gates is not None and {*tables} == {*features.tables, "user_id@double", "item_id@double"}
    # Beside what was trained is what it began with, at the ranker's scale.
    doubles, is_pretrained = tables["item_id@double"], tables["item_id@double"].any(1)
    rms = doubles[is_pretrained].square().mean().sqrt()
    assert rms == pytest.approx(state.model.embeddings.deviation, rel=1e-4)
    assert not torch.equal(tables["item_id"][is_pretrained], doubles[is_pretrained])
    assert all(gate.weight.abs().max() > 0 for gate in gates.gates)
    # What is served is one row for both, and predicts the same.
    ranker = TrainedRanker.load(store, "x", own.scored_day)
    served = ranker.model.served_tables()
    assert {*served} == {*features.tables}
    low, high = (edge(tables["item_id"], doubles) for edge in (torch.minimum, torch.maximum))
    assert ((served["item_id"] >= low - 1e-6) & (served["item_id"] <= high + 1e-6))[is_pretrained].all()
    assert torch.equal(served["item_id"][~is_pretrained], tables["item_id"][~is_pretrained])
    examples = tensors_of(read_examples(store, TRAINING, own.batch_days[0])[0], features, unsampled=False)
    plain = Ranker(features, config.model)
    weights = {name: value for name, value in ranker.model.state_dict().items() if "gates" not in name}
    plain.load_state_dict({**weights, "embeddings.weight": torch.cat([*served.values()])})
    batch = examples.batch(slice(0, 64))
    with torch.no_grad():
        torch.testing.assert_close(ranker.model(batch), plain.eval()(batch), rtol=0, atol=1e-5)


def test_other_tables_make_another_batch(pretrained, tmp_path):
    shutil.copytree(pretrained.store.root, tmp_path / "store")
    store, own = type(pretrained.store)(str(tmp_path / "store")), pretrained.deployment
    config = recipe(pretrained)
    first = train_batch(store.root, "x", own.config.features, config, own.batch_days)
    assert train_batch(store.root, "x", own.config.features, config, own.batch_days) == first
    storage.remove(store.pretrained(pretrained.days[-1]))
    own_config = pretraining(seed=7, **GRAPH)
    pretrain(store.root, own.config.dataset, own.config.features, own_config, pretrained.days[-1])
    assert train_batch(store.root, "x", own.config.features, config, own.batch_days) != first


def test_single_stage_trains_pairs_beside_the_examples(pretrained, tmp_path):
    shutil.copytree(pretrained.store.root, tmp_path / "store")
    store, own = type(pretrained.store)(str(tmp_path / "store")), pretrained.deployment
    features, days = own.config.features, own.batch_days
    config = recipe(pretrained, "single_stage", engagement={"batch_size": 64, "num_negatives": 32})
    collect_edges(store.root, own.config.dataset, pretraining().edges, [own.scored_day])
    first = train_batch(store.root, "x", features, config, days)
    assert train_batch(store.root, "x", features, config, days) == first
    train_day(store.root, "x", features, config, own.scored_day, days[-1])
    plain = TrainConfig.model_validate({**config.model_dump(), "pretrained": None})
    train_batch(store.root, "y", features, plain, days)
    one, two = (load_state(store, arm, days[-1])[0] for arm in ("x", "y"))
    assert not torch.equal(tables_of(one)["item_id"], tables_of(two)["item_id"])
    # What pairs do not look up is moved by the net's other inputs only.
    assert torch.allclose(tables_of(one)["hour_of_day"], tables_of(two)["hour_of_day"], atol=1e-2)
    with pytest.raises(InputError, match="single_stage|edges"):
        storage.remove(store.edges(days[1]))
        train_batch(store.root, "z", features, config, days)


def test_single_stage_goes_on_to_the_same_bits(pretrained, tmp_path, monkeypatch):
    shutil.copytree(pretrained.store.root, tmp_path / "store")
    store, own = type(pretrained.store)(str(tmp_path / "store")), pretrained.deployment
    values = recipe(pretrained, "single_stage", engagement={"batch_size": 64, "num_negatives": 32}).model_dump()
    config = TrainConfig.model_validate({**values, "execution": {"resume_steps": 2}})
    features, days = own.config.features, own.batch_days
    expected = train_batch(store.root, "x", features, config, days)
    storage.remove(store.checkpoint("x", days[-1]))
    step, done = Trainer.train_step, 0

    def step_or_die(*arguments):
        nonlocal done
        done += 1
        if done > 5:
            raise KeyboardInterrupt
        step(*arguments)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(Trainer, "train_step", step_or_die)
        train_batch(store.root, "x", features, config, days)
    assert train_batch(store.root, "x", features, config, days) == expected


def test_tables_that_know_scored_days_are_not_taken(pretrained):
    day = pretrained.days[-1]
    with pytest.raises(InputError, match="no pretrained tables whose window ends by"):
        find_pretrained(pretrained.store, PretrainedConfig(), "arms.x", day.replace(day=day.day - 1))


def test_stale_tables_are_told_and_then_refused(pretrained, capsys):
    last = pretrained.days[-1].replace(month=2)
    find_pretrained(pretrained.store, PretrainedConfig(warn_after_days=20), "arms.x", last)
    assert "31 days old, more than 20" in capsys.readouterr().out
    with pytest.raises(InputError, match="31 days before the batch does, more than refuse_after_days = 30"):
        find_pretrained(pretrained.store, PretrainedConfig(warn_after_days=20, refuse_after_days=30), "arms.x", last)


def test_tables_that_do_not_fit_are_refused(pretrained):
    features = pretrained.deployment.config.features
    manifest = read_manifest(pretrained.store.pretrained(pretrained.days[-1]), PretrainedManifest)
    state = new_state(features, recipe(pretrained), lineage(pretrained))

    def start(features: FeatureConfig, config: PretrainedConfig, manifest: PretrainedManifest = manifest) -> None:
        start_from(state.model.embeddings, state.of_model.held, features, pretrained.store, manifest, config)

    with pytest.raises(InputError, match="rows of 16 numbers, the arm's model.embedding_dim is 8"):
        start(features, PretrainedConfig(), manifest.model_copy(update={"embedding_dim": 16}))
    untrained = {**manifest.root_mean_square, "campaign_id": 0.0}
    with pytest.raises(InputError, match="no row of campaign_id was trained"):
        start(
            features,
            PretrainedConfig(tables=("campaign_id",)),
            manifest.model_copy(update={"root_mean_square": untrained}),
        )
    with pytest.raises(InputError, match="no table 'surface'"):
        start(features, PretrainedConfig(tables=("surface",)))
    values = features.model_dump()
    values["categorical"][1]["num_rows"] = 512
    with pytest.raises(InputError, match="item_id is .*512.* another row"):
        start(FeatureConfig.parse(values, "features"), PretrainedConfig())


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"optimizer": {"tables": "adam"}, "pretrained": {"mode": "frozen"}}, "set optimizer.tables: lazy_adam"),
        ({"optimizer": {"tables": "adam"}, "pretrained": {"mode": "gated"}}, "set optimizer.tables: lazy_adam"),
        ({"epochs": 2, "optimizer": {"reinitialize": {}}, "pretrained": {}}, "leave out one of the two"),
        ({"pretrained": {"warn_after_days": 90, "refuse_after_days": 30}}, "exchange them"),
        ({"pretrained": {"tables": ["item_id", "item_id"]}}, "item_id"),
    ],
)
def test_recipes_that_make_no_sense_are_refused(changes, message):
    with pytest.raises(InputError, match=message):
        TrainConfig.parse(changes, "train")


def test_recipes_without_pretrained_tables_are_what_they_were():
    assert "pretrained" not in TrainConfig().recipe() and "pretrained" not in TrainConfig().binding()
    assert TrainConfig.parse({"pretrained": {}}, "train").binding()["pretrained"]["mode"] == "finetuned"
