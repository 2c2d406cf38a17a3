import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import roc_auc_score
from torchrec.metrics.ne import compute_ne, get_ne_states

from components.evaluate.metrics import score_objective
from components.ranker import auc as auc_module
from components.ranker.auc import RankedRows, UserReplicates, grouped_auc, weighted_auc


def auc(labels, predictions):
    return float(weighted_auc(np.array(labels), np.array(predictions), np.ones((len(labels), 1)))[0])


def test_auc_by_hand():
    assert auc([1, 0, 1, 0], [0.9, 0.8, 0.7, 0.1]) == pytest.approx(3 / 4)


def test_ties_count_half():
    assert auc([1, 0], [0.5, 0.5]) == pytest.approx(0.5)
    assert auc([1, 0, 0], [0.5, 0.5, 0.1]) == pytest.approx(0.75)


@given(st.lists(st.tuples(st.booleans(), st.integers(0, 5), st.integers(1, 4)), min_size=2, max_size=60))
@settings(max_examples=200, deadline=None)
def test_auc_agrees_with_scikit_learn(rows):
    labels = np.array([row[0] for row in rows], dtype=int)
    predictions = np.array([row[1] / 5 for row in rows])
    weights = np.array([row[2] for row in rows], dtype=float)
    found = weighted_auc(labels, predictions, weights[:, None])[0]
    if 0 < labels.sum() < len(labels):
        assert found == pytest.approx(roc_auc_score(labels, predictions, sample_weight=weights))
    else:
        assert np.isnan(found)


def test_weights_are_repeated_rows():
    labels, predictions = np.array([1, 0, 1, 0]), np.array([0.9, 0.3, 0.2, 0.1])
    repeated = np.repeat(np.arange(4), [2, 1, 3, 1])
    weighted = weighted_auc(labels, predictions, np.array([[2], [1], [3], [1]]))[0]
    assert weighted == pytest.approx(auc(labels[repeated], predictions[repeated]))


def test_one_class_only_is_undefined():
    score = score_objective(np.zeros(10), np.full(10, 0.1), np.arange(10), 20)
    assert score.auc is None and score.pr_auc is None and score.calibration is None
    assert score.auc_replicates == ()


def test_no_rows_is_undefined():
    score = score_objective(np.zeros(0), np.zeros(0), np.zeros(0, dtype=np.int64), 20)
    assert (score.rows, score.positives, score.auc) == (0, 0, None)


def test_calibration_is_mean_prediction_over_mean_label():
    score = score_objective(np.array([1, 0, 0, 0]), np.array([0.5, 0.3, 0.1, 0.1]), np.arange(4), 0)
    assert score.calibration == pytest.approx(1.0)


def test_replicates_are_the_same_for_a_user_everywhere():
    users = np.array([5, 9, 5, 7])
    weights = UserReplicates(users).weights(range(50))
    assert (weights[0] == weights[2]).all()
    assert (UserReplicates(np.array([9])).weights(range(50))[0] == weights[1]).all()


def test_replicate_weights_are_poisson():
    weights = UserReplicates(np.arange(20_000)).weights(range(20))
    assert weights.mean() == pytest.approx(1.0, abs=0.01)
    assert weights.var() == pytest.approx(1.0, abs=0.02)
    assert (weights == 0).mean() == pytest.approx(np.exp(-1), abs=0.005)


def test_bootstrap_spread_matches_theory():
    generator = np.random.default_rng(1)
    labels = (generator.random(4000) < 0.2).astype(int)
    predictions = generator.normal(labels * 0.8, 1.0)
    replicates = np.array(score_objective(labels, predictions.clip(0, 1), np.arange(4000), 300).auc_replicates)
    assert replicates.mean() == pytest.approx(roc_auc_score(labels, predictions.clip(0, 1)), abs=0.005)
    assert 0.004 < replicates.std() < 0.02


@pytest.mark.parametrize("cells", [1, 700, 10**9])
def test_replicates_are_the_same_in_blocks_of_any_size(monkeypatch, cells):
    generator = np.random.default_rng(2)
    labels, predictions = generator.random(300) < 0.3, generator.random(300).round(2)
    users = generator.integers(0, 40, 300)
    whole = weighted_auc(labels, predictions, UserReplicates(users).weights(range(25)))
    monkeypatch.setattr(auc_module, "_CELLS_AT_ONCE", cells)
    assert RankedRows(labels, predictions).bootstrap(users, 25).tolist() == whole.tolist()


@pytest.mark.parametrize("wrong", [np.nan, np.inf, -np.inf])
def test_predictions_that_are_no_numbers_have_no_score(wrong):
    """NaN used to rank highest, and to pass every comparison."""
    labels, predictions = np.array([1, 0, 1, 0]), np.array([0.9, 0.3, wrong, 0.1])
    with pytest.raises(ValueError, match="1 predictions are not finite"):
        weighted_auc(labels, predictions, np.ones((4, 1)))
    score = score_objective(labels, predictions, np.arange(4), 20)
    assert (score.auc, score.pr_auc, score.log_loss, score.mean_prediction, score.calibration) == (None,) * 5
    assert score.num_not_finite == 1 and score.positives == 2


def test_grouped_auc_by_hand():
    """User 1 ranks its positive above both others, user 2 below its one; user 3 has one class, and no AUC."""
    users = np.array([1, 2, 1, 3, 2, 1])
    labels = np.array([1, 1, 0, 1, 0, 0])
    predictions = np.array([0.9, 0.1, 0.5, 0.3, 0.8, 0.2])
    assert grouped_auc(users, labels, predictions) == pytest.approx((3 * 1.0 + 2 * 0.0) / 5)
    assert grouped_auc(np.arange(6), labels, predictions) is None


@given(st.lists(st.tuples(st.integers(0, 4), st.booleans(), st.integers(0, 4)), min_size=1, max_size=60))
@settings(max_examples=200, deadline=None)
def test_grouped_auc_agrees_with_scikit_learn(rows):
    users, labels, predictions = (np.array(values) for values in zip(*rows, strict=True))
    aucs, sizes = [], []
    for user in np.unique(users):
        own = users == user
        if 0 < labels[own].sum() < own.sum():
            aucs.append(roc_auc_score(labels[own], predictions[own]))
            sizes.append(own.sum())
    found = grouped_auc(users, labels.astype(int), predictions / 5)
    assert found == (pytest.approx(np.average(aucs, weights=sizes)) if aucs else None)


def test_normalized_entropy_is_torchrec_s():
    generator = np.random.default_rng(3)
    labels = (generator.random(500) < 0.2).astype(np.float64)
    predictions = (0.1 + 0.3 * generator.random(500) + 0.2 * labels).clip(0, 1)
    weights = torch.ones(1, 500, dtype=torch.float64)
    tensors = (torch.from_numpy(labels)[None], torch.from_numpy(predictions)[None], weights)
    states = get_ne_states(*tensors, eta=1e-12)
    names = ("cross_entropy_sum", "weighted_num_samples", "pos_labels", "neg_labels")
    expected = compute_ne(*(states[name] for name in names), eta=1e-12)
    score = score_objective(labels, predictions, np.arange(500), 0)
    assert score.normalized_entropy == pytest.approx(float(expected), rel=1e-6)
    constant = score_objective(labels, np.full(500, labels.mean()), np.arange(500), 0)
    assert constant.normalized_entropy == pytest.approx(1.0)


def test_deciles_and_slices_are_of_all_rows():
    generator = np.random.default_rng(4)
    labels, predictions = (generator.random(997) < 0.3).astype(int), generator.random(997)
    first = generator.random(997) < 0.4
    score = score_objective(labels, predictions, np.arange(997), 0, {"a": first, "b": ~first, "none": first & ~first})
    assert len(score.deciles) == 10 and sum(decile.rows for decile in score.deciles) == 997
    assert sum(decile.positives for decile in score.deciles) == score.positives
    assert [d.mean_prediction for d in score.deciles] == sorted(d.mean_prediction for d in score.deciles)
    assert score.slices["a"].auc == pytest.approx(roc_auc_score(labels[first], predictions[first]))
    assert score.slices["a"].rows + score.slices["b"].rows == 997
    assert (score.slices["none"].rows, score.slices["none"].auc, score.slices["none"].calibration) == (0, None, None)
