"""Ranks, worked by hand."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from components.engagement.vocabulary import Known
from components.pretrain.ranks import Candidates, filtered_ranks


def test_hit_at_k_counts_a_tie_as_half_above():
    others = np.array([[10, 11, 12, 13]] * 3)
    candidates = Candidates(np.arange(3), np.array([20, 21, 22]), others)
    # Ranks 1, 1 + 2 + 0.5 = 3.5, and 1 + 1 + 0.5 * 2 = 3.
    found = np.array([[9.0, 1, 1, 1, 1], [5.0, 6, 6, 5, 1], [5.0, 6, 5, 5, 1]])
    assert candidates.hit_rate(lambda users, items: found[users], 3) == pytest.approx(2 / 3)


def test_candidates_are_none_that_the_user_engaged_with():
    generator = np.random.default_rng(0)
    pairs = np.unique(np.stack([generator.integers(0, 30, 400), generator.integers(0, 12, 400)], axis=1), axis=0)
    pairs = pairs[pairs[:, 0] < 25]
    items = np.arange(100)
    weights = np.where(items < 12, 50, 1)
    engaged = {tuple(pair) for pair in pairs}
    known = Known(items, weights, len(items))
    for given in (False, True):
        drawn = Candidates.draw((pairs[:, 0], pairs[:, 1]), known, given, 8, 3)
        assert not any(
            (user, item) in engaged for user, row in zip(drawn.users, drawn.others, strict=True) for item in row
        )
        again = Candidates.draw((pairs[:, 0], pairs[:, 1]), known, given, 8, 3)
        assert np.array_equal(drawn.others, again.others)
    by_degree = Candidates.draw((np.array([0]), np.array([99])), known, True, 4000, 1)
    assert (by_degree.others < 12).mean() == pytest.approx(12 * 50 / (12 * 50 + 88), abs=0.02)


def test_popularity_is_no_help_among_candidates_by_degree():
    """With an item drawn by degree too, half of the candidates are more popular on average."""
    generator = np.random.default_rng(0)
    items, degrees = np.arange(200), np.arange(200) ** 2 + 1
    own = generator.choice(200, 3000, p=degrees / degrees.sum())
    users = np.arange(3000)
    known = Known(items, degrees, len(items))
    drawn = [Candidates.draw((users, own), known, by_degree, 50, 2) for by_degree in (False, True)]
    rates = [candidates.hit_rate(lambda _, asked: degrees[asked].astype(float), 3) for candidates in drawn]
    assert rates[0] > 0.15 and rates[1] == pytest.approx(3 / 51, abs=0.02)


@pytest.mark.parametrize("at_once", [1, 2, 100])
def test_filtered_ranks_leave_out_other_true_tails(monkeypatch, at_once):
    found = torch.tensor([[5.0, 4.0, 3.0, 2.0, 2.0], [1.0, 2.0, 3.0, 4.0, 5.0]])
    known = (np.array([1, 0, 0, 0]), np.array([0, 0, 2, 3]))
    # Entities are 10, 12, 14, ...
    heads, tails, among = np.array([0, 0, 1]), np.array([14, 16, 10]), np.arange(10, 20, 2)

    def score(heads, tails):
        return found[heads][:, tails // 2 - 5]

    monkeypatch.setattr("components.pretrain.ranks._HEADS_AT_ONCE", at_once)
    monkeypatch.setattr("components.pretrain.ranks._ENTITIES_AT_ONCE", at_once)
    ranks = filtered_ranks(score, heads, tails, (known[0], 2 * known[1] + 10), among)
    # Of head 0 its other true tails are left out: 2 has 4.0 above; 3 has 4.0 above and ties with one.
    assert ranks.tolist() == [2.0, 2.5, 5.0]
