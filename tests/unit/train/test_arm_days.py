"""Arms that come later, fall behind, or have several random starts."""

from __future__ import annotations

import shutil
from dataclasses import replace
from datetime import timedelta

import pytest

from components.common.arms import ArmRetirement, find_costs, find_failure, find_recipe
from components.common.layout import Store
from components.common.manifests import read_manifest
from components.common.records import write_record
from components.ranker.checkpoint import CheckpointManifest
from components.train.run import main_batch, main_days
from tests.conftest import Deployment


@pytest.fixture()
def own(trained, tmp_path) -> Deployment:
    """A deployment of its own, with an arm `late` that has two starts and was never trained."""
    shutil.copytree(trained.store.root, tmp_path / "store")
    store = Store(str(tmp_path / "store"))
    late = trained.config.arms["baseline"].model_copy(update={"seed": 5, "replicas": 2})
    schedule = trained.config.schedule.model_copy(update={"num_batch_days": 2})
    config = trained.config.model_copy(update={"arms": {**trained.config.arms, "late": late}, "schedule": schedule})
    return replace(trained, store=store, config=config)


def manifest(store: Store, model: str, day) -> CheckpointManifest:
    return read_manifest(store.checkpoint(model, day), CheckpointManifest)


def test_new_arm_s_batch_ends_where_the_others_are(own):
    store, day = own.store, str(own.scored_day)
    uri = own.config.write(store)
    digests = main_days(store.root, uri, "late", day, day)
    assert len(digests) == 2 and digests[0] != digests[1], "each start has a seed of its own"
    for model, digest in zip(("late", "late.1"), digests, strict=True):
        found = manifest(store, model, own.scored_day)
        assert found.checkpoint_digest == digest and found.lineage.arm == model and not found.lineage.parent
        assert (found.lineage.first_day, found.lineage.trained_through) == (
            own.scored_day - timedelta(days=1),
            own.scored_day,
        )
        costs = find_costs(store, model, own.scored_day)
        assert costs is not None and costs.examples > 0
    assert (
        manifest(store, "late", own.scored_day).lineage.recipe_digest
        != manifest(store, "late.1", own.scored_day).lineage.recipe_digest
    ), "the seed is of the recipe"
    assert find_recipe(store, "late") is not None
    assert main_days(store.root, uri, "late", day, day) == digests, "asked again, there is nothing to do"


def test_arm_that_is_behind_catches_up_day_by_day(own):
    store, last = own.store, str(own.scored_day)
    first, second, third, fourth = own.batch_days
    uri = own.config.write(store)
    main_batch(store.root, uri, "late", str(first), str(second))
    (newest, _) = main_days(store.root, uri, "late", last, last)
    assert store.checkpoint_days("late") == [second, third, fourth, own.scored_day]
    found = manifest(store, "late", own.scored_day)
    assert found.checkpoint_digest == newest and found.lineage.first_day == first
    assert found.lineage.parent == manifest(store, "late", fourth).checkpoint_digest


def test_first_start_is_the_arm_without_replicas(own):
    """So an arm's AUC is what it was, to the last bit, when replicas are added to the recipe of another store."""
    store, day = own.store, str(own.scored_day)
    main_days(store.root, own.config.write(store), "late", day, day)
    with_one = manifest(store, "late", own.scored_day).checkpoint_digest
    shutil.rmtree(store.checkpoint("late", own.scored_day))
    alone = own.config.arms["late"].model_copy(update={"replicas": 1})
    config = own.config.model_copy(update={"arms": {**own.config.arms, "late": alone}})
    assert main_days(store.root, config.write(store), "late", day, day) == [with_one]


def test_retired_arm_is_left_alone(own, capsys):
    store, day = own.store, str(own.scored_day)
    retirement = ArmRetirement(arm="late", day=own.scored_day, reason="enough seen", by_gate=False)
    write_record(store.arm_retirement("late"), retirement)
    assert main_days(store.root, own.config.write(store), "late", day, day) == []
    assert store.checkpoint_days("late") == [] and "enough seen" in capsys.readouterr().out


def test_what_keeps_a_new_arm_from_starting_is_its_own_failure(own):
    """The examples are those of the others: only its tables to start from can be missing."""
    store, day = own.store, str(own.scored_day)
    late = own.config.arms["late"].model_dump(mode="json") | {"pretrained": {"tables": ["user_id"]}}
    late["optimizer"] |= {"tables": "lazy_adam"}
    recipe = type(own.config.arms["late"]).model_validate(late)
    config = own.config.model_copy(update={"arms": {**own.config.arms, "late": recipe}})
    assert main_days(store.root, config.write(store), "late", day, day) == []
    failure = find_failure(store, "late")
    assert failure is not None and "pretrain" in failure.reason
