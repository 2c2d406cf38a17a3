"""Losses against their equations, written out pair by pair."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch.nn import functional

from components.engagement import contrastive
from components.engagement.contrastive import bce_loss, contrastive_loss
from components.pretrain.config import ContrastiveConfig, GraphConfig
from components.pretrain.entity_model import EntityNet
from components.pretrain.link_prediction import link_loss, own_scores, scores
from tests.unit.pretrain.conftest import pretraining

USERS, ITEMS, RANDOMS = torch.tensor([3, 3, 5, 6]), torch.tensor([1, 2, 1, 4]), torch.tensor([2, 7, 4])
SHARES = {1: 0.5, 2: 0.2, 4: 0.1, 7: 0.2}


def vectors(seed: int = 0) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Equal ids have equal vectors."""
    drawn = torch.randn(8, 8, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    other = torch.randn(8, 8, generator=torch.Generator().manual_seed(seed + 1), dtype=torch.float64)
    return drawn[USERS], other[ITEMS], other[RANDOMS]


def expected(config: ContrastiveConfig, temperature: float) -> float:
    users, items, randoms = vectors()
    cosine = functional.cosine_similarity
    engaged = {(int(user), int(item)) for user, item in zip(USERS, ITEMS, strict=True)}
    losses = []
    for row, (user, item) in enumerate(zip(USERS.tolist(), ITEMS.tolist(), strict=True)):
        positive = float(cosine(users[row], items[row], dim=0)) / temperature
        terms = [positive]
        for other in sorted(set(ITEMS.tolist())) if config.in_batch else ():
            if (user, other) not in engaged:
                place = ITEMS.tolist().index(other)
                expected_count = SHARES[other] * len(ITEMS) if config.log_q else 1.0
                terms.append(float(cosine(users[row], items[place], dim=0)) / temperature - math.log(expected_count))
        for place, other in enumerate(RANDOMS.tolist()):
            if other != item:
                expected_count = len(RANDOMS) / 10 if config.log_q else 1.0
                terms.append(float(cosine(users[row], randoms[place], dim=0)) / temperature - math.log(expected_count))
        losses.append(math.log(sum(math.exp(term) for term in terms)) - positive)
    return sum(losses) / len(losses)


@pytest.mark.parametrize("changes", [{}, {"log_q": True}, {"in_batch": False}, {"num_negatives": 0}])
def test_contrastive_loss_is_equation_1_without_accidental_hits(changes):
    config = ContrastiveConfig(temperature=0.3, **changes)
    net = EntityNet(pretraining(contrastive={"temperature": 0.3}))
    parts, ids = vectors(), (USERS, ITEMS, RANDOMS)
    if changes.get("num_negatives") == 0:
        parts, ids = (*parts[:2], parts[2][:0]), (USERS, ITEMS, RANDOMS[:0])
    shares = torch.tensor([SHARES[item] for item in ITEMS.tolist()], dtype=torch.float64)
    temperature = net.temperature(config.temperature_range)
    found = contrastive_loss(temperature, parts, ids, (shares, 1 / 10), config.in_batch, config.log_q)
    if changes.get("num_negatives") == 0:
        with pytest.MonkeyPatch.context() as patch:
            patch.setitem(globals(), "RANDOMS", RANDOMS[:0])
            assert found.item() == pytest.approx(expected(config, 0.3), rel=1e-5)
    else:
        assert found.item() == pytest.approx(expected(config, 0.3), rel=1e-5)


@pytest.mark.parametrize("at_once", [1, 20, 10**6])
@pytest.mark.parametrize("log_q", [False, True])
def test_contrastive_gradients_are_those_of_finite_differences(monkeypatch, at_once, log_q):
    monkeypatch.setitem(contrastive._NUMBERS_AT_ONCE, "cpu", at_once)
    shares = torch.tensor([SHARES[item] for item in ITEMS.tolist()], dtype=torch.float64)

    def loss(temperature, *parts):
        return 3 * contrastive_loss(temperature, parts, (USERS, ITEMS, RANDOMS), (shares, 1 / 10), log_q=log_q)

    given = (torch.tensor(0.3, dtype=torch.float64), *vectors())
    assert torch.autograd.gradcheck(loss, [part.clone().requires_grad_() for part in given])


def test_temperature_is_clamped():
    net = EntityNet(pretraining())
    with torch.no_grad():
        net.log_temperature.fill_(-100.0)
    assert net.temperature((0.02, 1.0)).item() == pytest.approx(0.02)


def test_bce_leaves_out_random_items_that_are_the_pairs_own():
    net = EntityNet(pretraining())
    users, items, randoms = vectors()
    found = bce_loss(net.bias, (users, items, randoms), (USERS, ITEMS, RANDOMS)).item()
    positive = np.mean([math.log1p(math.exp(-float(user @ item))) for user, item in zip(users, items, strict=True)])
    negative = [
        math.log1p(math.exp(float(users[row] @ randoms[place])))
        for row, item in enumerate(ITEMS.tolist())
        for place, other in enumerate(RANDOMS.tolist())
        if item != other
    ]
    assert found == pytest.approx(0.5 * (positive + np.mean(negative)), rel=1e-6)


def net_of(model: str) -> EntityNet:
    torch.manual_seed(1)
    net = EntityNet(pretraining(graph={"model": model}))
    if net.projections is not None:
        with torch.no_grad():
            net.projections.add_(0.1 * torch.randn_like(net.projections))
    return net.double()


def one_score(net: EntityNet, model: str, relation: int, head: torch.Tensor, tail: torch.Tensor) -> float:
    own = net.relations[relation]
    if model == "distmult":
        return (head * own * tail).sum().item()
    if model == "complex":
        parts = [torch.complex(*vector.chunk(2)) for vector in (head, own, tail)]
        return (parts[0] * parts[1] * parts[2].conj()).sum().real.item()
    if model == "transr":
        assert net.projections is not None
        head, tail = net.projections[relation] @ head, net.projections[relation] @ tail
    return -torch.linalg.vector_norm(head + own - tail, ord=1).item()


@pytest.mark.parametrize("model", ["transe", "transr", "distmult", "complex"])
def test_scores_are_those_of_their_papers(model):
    net, (heads, tails, _) = net_of(model), vectors()
    found = scores(net, model, 2, heads, tails)
    for row in range(4):
        for column in range(4):
            assert found[row, column].item() == pytest.approx(
                one_score(net, model, 2, heads[row], tails[column]), rel=1e-6, abs=1e-9
            )
    torch.testing.assert_close(own_scores(net, model, 2, heads, tails), found.diagonal())


@pytest.mark.parametrize("model", ["transe", "distmult"])
def test_link_loss_weighs_hard_negatives_and_leaves_out_edges(model):
    config, net, (heads, tails, others) = GraphConfig(model=model, margin=2.0), net_of(model), vectors()
    is_edge = torch.tensor([[True, False, False]] + [[False] * 3] * 2 + [[True] * 3])
    margin = 2.0 if model == "transe" else 0.0
    losses = []
    for row in range(4):
        negatives = [
            one_score(net, model, 0, heads[row], others[column]) for column in range(3) if not is_edge[row, column]
        ]
        weights = np.exp(negatives) / np.sum(np.exp(negatives)) if negatives else []
        of_negatives = sum(
            weight * math.log1p(math.exp(margin + f)) for weight, f in zip(weights, negatives, strict=True)
        )
        positive = one_score(net, model, 0, heads[row], tails[row])
        losses.append(0.5 * (math.log1p(math.exp(-margin - positive)) + of_negatives))
    found = link_loss(net, config, 0, heads, tails, others, is_edge)
    assert found.item() == pytest.approx(np.mean(losses), rel=1e-6)
    found.backward()
    assert all(parameter.grad is None or parameter.grad.isfinite().all() for parameter in net.parameters())


def test_distance_of_nothing_has_a_gradient():
    net, vector = net_of("transe"), torch.zeros(1, 8, dtype=torch.float64, requires_grad=True)
    scores(net, "transe", 0, vector, vector + net.relations[0].detach()).sum().backward()
    assert vector.grad is not None and vector.grad.isfinite().all()
