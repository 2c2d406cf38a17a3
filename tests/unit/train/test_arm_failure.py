"""An arm that diverges is recorded and left out; the others are trained, scored and judged without it."""

from __future__ import annotations

import shutil
from dataclasses import replace

import pytest
import torch

from components.common import storage
from components.common.arms import ArmFailure, ArmList, find_failure
from components.common.config import ResolvedConfig
from components.common.layout import Store
from components.common.ledger import find_row
from components.common.lineage import Lineage
from components.common.records import write_record
from components.common.releases import Pointer
from components.evaluate.run import evaluate_day
from components.gate.run import judge_day
from components.ranker.checkpoint import find_checkpoint
from components.schedule.run import pick_day
from components.train.run import main_batch, main_days
from components.train.training_run import TrainingRun
from components.train.training_state import new_state
from tests.conftest import Deployment

ARMS = ArmList("baseline", {"baseline": 1, "sparse_optimizer": 1})
DIVERGING = {"optimizer": {"learning_rate": 1e30}}


@pytest.fixture()
def diverging(joined, tmp_path) -> tuple[Deployment, str]:
    """The deployment with a candidate that diverges, in a store of its own, where nothing was trained."""
    trained = shutil.ignore_patterns("checkpoints", "ledger")
    shutil.copytree(joined.store.root, tmp_path / "store", ignore=trained)
    store = Store(str(tmp_path / "store"))
    candidate = joined.config.arms["sparse_optimizer"]
    optimizer = candidate.optimizer.model_copy(update=DIVERGING["optimizer"])
    arms = {**joined.config.arms, "sparse_optimizer": candidate.model_copy(update={"optimizer": optimizer})}
    config = joined.config.model_copy(update={"arms": arms})
    return replace(joined, store=store, config=config), config.write(store)


def train_batch(deployment: Deployment, config_uri: str) -> dict[str, list[str]]:
    days = (str(deployment.batch_days[0]), str(deployment.batch_days[-1]))
    return {arm: main_batch(deployment.store.root, config_uri, arm, *days) for arm in ("baseline", "sparse_optimizer")}


def test_failure_is_the_arms_own(diverging, capsys):
    deployment, config_uri = diverging
    store, config, last = deployment.store, deployment.config, deployment.batch_days[-1]
    digests = train_batch(deployment, config_uri)
    assert digests["baseline"] and not digests["sparse_optimizer"]
    failure = find_failure(store, "sparse_optimizer")
    assert failure is not None and failure.day == last and "finite" in failure.reason
    assert find_checkpoint(store, "sparse_optimizer", last) is None and find_failure(store, "baseline") is None
    assert "the others go on without it" in capsys.readouterr().out

    evaluate_day(store.root, config.dataset, config.evaluation, ARMS, "batch", deployment.scored_day, last)
    assert find_row(store, deployment.scored_day, "baseline") is not None
    assert find_row(store, deployment.scored_day, "sparse_optimizer") is None
    blessing = judge_day(store.root, ResolvedConfig.open(config_uri), "batch", deployment.scored_day)
    assert [release.arm for release in blessing.releases] == ["baseline"]
    assert not blessing.blessed and blessing.reasons[0].startswith(f"sparse_optimizer failed on {last}: ")

    day = str(deployment.scored_day)
    assert main_days(store.root, config_uri, "baseline", day, day)
    assert not main_days(store.root, config_uri, "sparse_optimizer", day, day), "it is not tried again"
    storage.write_bytes(store.finished_run("batch", deployment.scored_day), b"{}")
    early = config.schedule.model_copy(update={"train_immature": True})
    chosen = pick_day(
        store, config.dataset, early, config.dataset.mature_on(deployment.scored_day).replace(day=25), ARMS
    )
    assert deployment.scored_day not in chosen.train_days, "training is not held back to the failed arm's days"


def test_failed_arm_is_tried_again_when_its_record_is_deleted(diverging, joined):
    deployment, config_uri = diverging
    train_batch(deployment, config_uri)
    storage.remove(deployment.store.arm_failure("sparse_optimizer"))
    days = (str(deployment.batch_days[0]), str(deployment.batch_days[-1]))
    mended = joined.config.write(deployment.store)
    assert main_batch(deployment.store.root, mended, "sparse_optimizer", *days)


def test_checkpoint_from_before_a_failure_is_not_scored(trained, tmp_path):
    """An arm whose recipe was changed, and then failed, leaves the checkpoint of its old recipe behind."""
    shutil.copytree(trained.store.root, tmp_path / "store", ignore=shutil.ignore_patterns("ledger"))
    store, through = Store(str(tmp_path / "store")), trained.batch_days[-1]
    write_record(
        store.arm_failure("sparse_optimizer"), ArmFailure(arm="sparse_optimizer", day=through, reason="diverged")
    )
    config = trained.config
    evaluate_day(store.root, config.dataset, config.evaluation, ARMS, "batch", trained.scored_day, through)
    assert find_row(store, trained.scored_day, "baseline") is not None
    assert find_row(store, trained.scored_day, "sparse_optimizer") is None


@pytest.mark.parametrize("wrong", [float("nan"), float("inf")])
def test_weights_are_looked_at_after_the_last_update(joined, wrong):
    """No loss sees them any more."""
    day = joined.batch_days[0]
    lineage = Lineage(arm="x", first_day=day, trained_through=day, parent="", step=0, negative_keep_rate=1.0)
    state = new_state(joined.config.features, joined.config.arms["sparse_optimizer"], lineage)
    state.of_model.check_finite("train x")
    with torch.no_grad():
        state.model.net.wide.bias[0] = wrong
    with pytest.raises(FloatingPointError, match=r"1 weights such as net\.wide\.bias are not finite after the last"):
        state.of_model.check_finite("train x")


def test_no_checkpoint_is_written_of_weights_that_are_no_numbers(joined, tmp_path, monkeypatch):
    from dataclasses import replace

    from tests.unit.train.test_run import copy_examples

    own = copy_examples(joined, str(tmp_path / "own"))
    original = TrainingRun.run

    def run_and_break(run):
        original(run)
        with torch.no_grad():
            run.trainer.model.net.wide.bias[0] = float("nan")

    monkeypatch.setattr(TrainingRun, "run", run_and_break)
    digests = train_batch(replace(own), joined.config.write(own.store))
    assert digests == {"baseline": [], "sparse_optimizer": []}
    assert own.store.checkpoint_days("baseline") == []


def test_served_version_is_scored_by_its_own_files(published, trained, tmp_path):
    """Without its checkpoint, and with what INT4 tables make of it."""
    import shutil

    shutil.copytree(published.store.root, tmp_path / "store")
    store, config = Store(str(tmp_path / "store")), trained.config
    storage.remove(storage.join_uri(store.root, "ledger"))
    pointer = Pointer(
        version=published.old,
        arm="elsewhere",
        checkpoint_digest="c",
        trained_through=trained.batch_days[-1],
        published_on=trained.scored_day,
    )
    from components.common.records import write_record

    write_record(store.pointer("CURRENT"), pointer)
    evaluate_day(
        store.root, config.dataset, config.evaluation, ARMS, "daily", trained.scored_day, trained.batch_days[-1]
    )
    rows = {arm: find_row(store, trained.scored_day, arm) for arm in ("served", "baseline")}
    auc = {arm: row.scores["checkout_given_view"].auc for arm, row in rows.items()}
    assert auc["served"] == pytest.approx(auc["baseline"], abs=0.01) and auc["served"] != auc["baseline"]
