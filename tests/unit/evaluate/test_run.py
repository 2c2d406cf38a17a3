from datetime import timedelta

import pytest

from components.common.arms import ArmList
from components.common.errors import InputError
from components.common.ledger import find_row
from components.evaluate.config import EvaluationConfig
from components.evaluate.logistic_regression import Yardstick
from components.evaluate.run import evaluate_day
from components.features.examples import read_examples
from components.features.objectives import DEFAULT_SERVED, OBJECTIVE_NAMES
from components.ranker.checkpoint import find_checkpoint
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
    predicted = Yardstick(training, 0.5, 0.1, DEFAULT_SERVED).predict(unseen)["checkout_given_view"]
    rows = unseen.masks[:, OBJECTIVE_NAMES.index("checkout_given_view")].numpy() > 0
    labels = unseen.labels[:, OBJECTIVE_NAMES.index("checkout_given_view")].numpy()[rows]
    assert predicted[rows][labels > 0].mean() > 1.2 * predicted[rows][labels == 0].mean()
    assert predicted[rows].mean() == pytest.approx(labels.mean(), rel=0.35)
