"""Link prediction on edges: scores of ends that are shared by a batch, and the loss that trains them.

A relation has parameters of its own in each direction, so that only targets are ever asked for: of an edge (h, r, t)
once t among others, once h among others by the reverse relation. All negatives of a batch are the same, and their
scores one matrix product (Lerer et al. 2019, section 4.3).
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from components.pretrain.config import GraphConfig
from components.pretrain.entity_model import EntityNet


def scores(net: EntityNet, model: str, relation: int, heads: Tensor, tails: Tensor) -> Tensor:
    """How well each tail fits each head, shape (n, m); higher is better.

    distmult: sum(h * r * t). complex: Re(sum(h * r * conj(t))), the first half of a vector real, the second imaginary
    (Trouillon et al. 2016). transe: -|h + r - t|. transr: -|M h + r - M t| (Lin et al. 2015), whose M starts at the
    identity, so that it is anchored where entities already are. Norms are L1, which ranks better than L2 on Kinships
    and UMLS.

    Args:
        net: With the relations' parameters.
        model: Which of these.
        relation: The direction's number.
        heads: Shape (n, dim).
        tails: Shape (m, dim).
    """
    asked = _asked(net, model, relation, heads)
    if model in ("distmult", "complex"):
        return asked @ tails.T
    if model == "transr":
        assert net.projections is not None
        tails = tails @ net.projections[relation].T
    return -torch.cdist(asked, tails, p=1.0)


def own_scores(net: EntityNet, model: str, relation: int, heads: Tensor, tails: Tensor) -> Tensor:
    """How well each tail fits its own head, as `scores` has it on its diagonal; shape (n,)."""
    asked = _asked(net, model, relation, heads)
    if model in ("distmult", "complex"):
        return (asked * tails).sum(1)
    if model == "transr":
        assert net.projections is not None
        tails = tails @ net.projections[relation].T
    return -(asked - tails).abs().sum(1)


def _asked(net: EntityNet, model: str, relation: int, heads: Tensor) -> Tensor:
    """What tails are compared with, shape (n, dim)."""
    own = net.relations[relation]
    if model == "distmult":
        return heads * own
    if model == "complex":
        (real, imaginary), (own_real, own_imaginary) = heads.chunk(2, dim=1), own.chunk(2)
        return torch.cat(
            [real * own_real - imaginary * own_imaginary, real * own_imaginary + imaginary * own_real], dim=1
        )
    if model == "transr":
        assert net.projections is not None
        heads = heads @ net.projections[relation].T
    return heads + own


def link_loss(
    net: EntityNet, config: GraphConfig, relation: int, heads: Tensor, tails: Tensor, others: Tensor, is_edge: Tensor
) -> Tensor:
    """Self-adversarial loss of n edges against m other tails, shape () (Sun et al. 2019, equations 5 and 6).

    L = -mean_i [log s(g + f_ii) + sum_k p_ik log s(-g - f_ik)] / 2, with f the scores, g the margin of distances (none
    for products), s the sigmoid and p the softmax over k of f_ik times the adversarial temperature, held constant.

    Args:
        net: With the relations' parameters.
        config: The model.
        relation: The direction's number.
        heads: Shape (n, dim).
        tails: Shape (n, dim).
        others: Shape (m, dim).
        is_edge: Of others, whether they are the edge's own tail, bool, shape (n, m); they do not count.
    """
    margin = config.margin if config.model in ("transe", "transr") else 0.0
    positive = own_scores(net, config.model, relation, heads, tails)
    negative = scores(net, config.model, relation, heads, others)
    weights = (negative.detach() * config.adversarial_temperature).masked_fill(is_edge, float("-inf")).softmax(1)
    # A row without any negative has no weights.
    of_negatives = (weights.nan_to_num() * functional.softplus(margin + negative)).sum(1)
    return 0.5 * (functional.softplus(-margin - positive) + of_negatives).mean()
