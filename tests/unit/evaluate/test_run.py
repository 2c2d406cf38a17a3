import shutil
from datetime import timedelta

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest

from components.common import parquet_files, storage
from components.common.arms import ArmList
from components.common.errors import InputError
from components.common.layout import Store
from components.common.ledger import find_row
from components.evaluate.config import EvaluationConfig
from components.evaluate.logistic_regression import Yardstick
from components.evaluate.run import evaluate_day
from components.features.examples import read_examples
from components.features.objectives import DEFAULT_SERVED, OBJECTIVE_NAMES
from components.ranker.checkpoint import TrainedRanker, find_checkpoint
from components.ranker.dataset import tensors_of

ARMS = ArmList("baseline", {"baseline": 1, "sparse_optimizer": 1})


def test_both_arms_are_scored_on_the_same_unseen_rows(trained):
    rows = [find_row(trained.store, trained.scored_day, arm) for arm in ("baseline", "sparse_optimizer")]
    assert rows[0].examples_digest == rows[1].examples_digest
    for row in rows:
        assert row.trained_through == trained.batch_days[-1] < row.event_date
        manifest = find_checkpoint(trained.store, row.arm, row.trained_through)
        assert row.checkpoint_digest == manifest.checkpoint_digest
        assert set(row.scores) == set(OBJECTIVE_NAMES)
        assert len(row.scores["checkout_given_view"].auc_replicates) == trained.config.evaluation.num_replicates
        assert row.scores["click"].auc_replicates == ()
    everything = read_examples(trained.store, "evaluation", trained.scored_day)[0].num_rows
    assert rows[0].scores["click"].rows == everything


def test_scoring_again_changes_nothing(trained):
    uri = trained.store.ledger_row(trained.scored_day, "baseline")
    with open(uri, "rb") as stream:
        before = stream.read()
    config = trained.config
    evaluate_day(
        trained.store.root, config.dataset, config.evaluation, ARMS, "batch", trained.scored_day, trained.batch_days[-1]
    )
    with open(uri, "rb") as stream:
        assert stream.read() == before


def test_ids_without_a_row_are_counted_and_many_of_them_are_an_alarm(trained, capsys):
    row, through = find_row(trained.store, trained.scored_day, "baseline"), trained.batch_days[-1]
    table, _ = read_examples(trained.store, "evaluation", trained.scored_day)
    # The first two tags of each count.
    tags = np.array([tag for tags in table["item_tags"].to_pylist() for tag in tags[:2]])
    indexes = TrainedRanker.load(trained.store, "baseline", through).indexes
    for name, ids in (("campaign_id", table["campaign_id"].to_numpy()), ("item_tags", tags)):
        known = indexes[name].find(ids) >= 0
        assert row.unknown_ids[name] == pytest.approx(1 - known.mean()) and 0 < known.mean() < 1
    for limit, is_alarm in ((0.999, False), (row.unknown_ids["campaign_id"] * 0.9, True)):
        config = trained.config.evaluation.model_copy(update={"max_unknown_ids": limit})
        days = (trained.scored_day, through)
        evaluate_day(trained.store.root, trained.config.dataset, config, ARMS, "batch", *days)
        printed = capsys.readouterr().out
        assert (f"ALARM: {trained.scored_day}: baseline: " in printed) is is_alarm


def test_day_that_was_trained_on_is_refused(trained):
    with pytest.raises(InputError, match="have seen"):
        evaluate_day(
            trained.store.root,
            trained.config.dataset,
            EvaluationConfig(),
            ARMS,
            "daily",
            trained.scored_day,
            trained.scored_day,
        )


def test_missing_examples_are_named(trained):
    with pytest.raises(InputError, match="no finished examples"):
        evaluate_day(
            trained.store.root,
            trained.config.dataset,
            EvaluationConfig(logistic_regression=False),
            ARMS,
            "daily",
            trained.scored_day + timedelta(days=1),
            trained.scored_day,
        )


def test_yardstick_learns_and_is_calibrated(joined):
    import pyarrow as pa

    days = [read_examples(joined.store, "training", day)[0] for day in joined.batch_days]
    training = tensors_of(pa.concat_tables(days), joined.config.features, unsampled=False)
    unseen = tensors_of(
        read_examples(joined.store, "evaluation", joined.scored_day)[0], joined.config.features, unsampled=True
    )
    predicted = Yardstick([training], 0.5, 0.1, DEFAULT_SERVED).predict(unseen)["checkout_given_view"]
    rows = unseen.masks[:, OBJECTIVE_NAMES.index("checkout_given_view")].numpy() > 0
    labels = unseen.labels[:, OBJECTIVE_NAMES.index("checkout_given_view")].numpy()[rows]
    assert predicted[rows][labels > 0].mean() > 1.2 * predicted[rows][labels == 0].mean()
    assert predicted[rows].mean() == pytest.approx(labels.mean(), rel=0.35)


def test_arm_that_is_behind_is_left_out_and_production_never_is(trained, tmp_path, capsys):
    """Such as one that was retired, and is taken up again: it is trained on in this run, and scored in the next."""
    shutil.copytree(trained.store.root, tmp_path / "store", ignore=shutil.ignore_patterns("ledger"))
    store, through = Store(str(tmp_path / "store")), trained.batch_days[-1]
    earlier = through - timedelta(days=1)
    shutil.move(store.checkpoint("sparse_optimizer", through), store.checkpoint("sparse_optimizer", earlier))
    days = (trained.scored_day, through)
    rest = (trained.config.dataset, trained.config.evaluation)
    with pytest.raises(InputError, match="no checkpoint to score; train sparse_optimizer through"):
        evaluate_day(store.root, *rest, ARMS, "batch", *days)
    storage.write_bytes(store.finished_run("batch", trained.scored_day), b"{}")
    assert evaluate_day(store.root, *rest, ARMS, "daily", *days).keys() == {"baseline"}
    assert "sparse_optimizer is left out: it has no checkpoint through" in capsys.readouterr().out
    with pytest.raises(InputError, match="train sparse_optimizer through"):
        evaluate_day(store.root, *rest, ArmList("sparse_optimizer", ARMS.replicas), "daily", *days)


def test_slices_are_those_of_the_logs(trained):
    logged = read_parquet_days(trained, "impressions")
    scores = find_row(trained.store, trained.scored_day, "baseline").scores
    sliced = [scores[name].slices for name in DEFAULT_SERVED]
    for surface in (0, 1):
        rows = sum(slices[f"surface={surface}"].rows for slices in sliced)
        assert 0 < rows == pc.sum(pc.equal(logged["surface"], surface)).as_py()
    known, unknown = (sum(s[f"users {word} earlier actions"].rows for s in sliced) for word in ("with", "without"))
    assert known > 0 and known + unknown == logged.num_rows


def read_parquet_days(deployment, log: str) -> pa.Table:
    """The clean log of the scored day."""
    uri = deployment.store.clean_logs(log, deployment.scored_day)
    names = [name for name in storage.list_names(uri) if name.endswith(".parquet")]
    return pa.concat_tables([parquet_files.read_parquet(storage.join_uri(uri, name)) for name in names])
