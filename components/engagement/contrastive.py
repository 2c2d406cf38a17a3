"""Users and items whose vectors agree where they engaged (Hsu et al. 2024)."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional

_NEVER = float("-inf")


def contrastive_loss(
    temperature: Tensor,
    vectors: tuple[Tensor, Tensor, Tensor],
    ids: tuple[Tensor, Tensor, Tensor],
    shares: tuple[Tensor, float],
    in_batch: bool = True,
    log_q: bool = False,
) -> Tensor:
    """The loss of a batch of n pairs that were engaged, against in-batch and m random items, shape ().

    L = -mean_i log(exp(s_ii / t) / (exp(s_ii / t) + sum_j exp(s_ij / t) + sum_k exp(s_ik / t))), with s the dot product
    of L2-normalised vectors and t the temperature (equation 1). Each item of the batch counts once; it is no negative
    of a user who engaged with it in this batch.

    With `log_q` the logit of a negative is reduced by the logarithm of how often it is expected among those of its
    kind, so that popular items are not pushed away for being drawn often. The positive is left alone: it is not drawn
    (2507.09331).

    Args:
        temperature: t, shape ().
        vectors: Of users (n, dim), their items (n, dim) and random items (m, dim).
        ids: Of the same, int64, (n,), (n,) and (m,).
        shares: Of all pairs those that each pair's item is in, float32, (n,); and 1 / number of items.
        in_batch: Whether the items of other pairs are negatives.
        log_q: Whether logits are corrected.
    """
    users, items, randoms = (functional.normalize(part, dim=1) for part in vectors)
    user_ids, item_ids, random_ids = ids
    positive = (users * items).sum(1) / temperature
    columns = [positive[:, None]]
    if in_batch:
        first, engaged = _distinct_items(user_ids, item_ids)
        logits = users @ items[first].T / temperature
        if log_q:
            logits = logits - torch.log(shares[0][first] * len(items))
        columns.append(logits.masked_fill(engaged, _NEVER))
    if len(randoms):
        logits = users @ randoms.T / temperature
        if log_q:
            logits = logits - math.log(shares[1] * len(randoms))
        columns.append(logits.masked_fill(item_ids[:, None] == random_ids, _NEVER))
    return (torch.cat(columns, dim=1).logsumexp(1) - positive).mean()


def bce_loss(bias: Tensor, vectors: tuple[Tensor, Tensor, Tensor], ids: tuple[Tensor, Tensor, Tensor]) -> Tensor:
    """Binary cross-entropy of the same pairs, whose negatives are the random items; shape ().

    Logits are dot products and the bias; positives and negatives have half of the weight each. Arguments are those of
    `contrastive_loss`.
    """
    (users, items, randoms), (_, item_ids, random_ids) = vectors, ids
    positive = (users * items).sum(1) + bias
    negative = users @ randoms.T + bias
    counts = (item_ids[:, None] != random_ids).to(negative.dtype)
    of_negatives = (functional.softplus(negative) * counts).sum() / counts.sum().clamp(min=1)
    return 0.5 * (functional.softplus(-positive).mean() + of_negatives)


def _distinct_items(user_ids: Tensor, item_ids: Tensor) -> tuple[Tensor, Tensor]:
    """A pair with each distinct item, int64, (d,), and which of them each pair's user engaged with, bool, (n, d)."""
    items, item_of = torch.unique(item_ids, return_inverse=True)
    users, user_of = torch.unique(user_ids, return_inverse=True)
    first = torch.empty_like(items)
    first[item_of.flip(0)] = torch.arange(len(item_ids) - 1, -1, -1, device=item_ids.device)
    engaged = torch.zeros(len(users), len(items), dtype=torch.bool, device=item_ids.device)
    engaged[user_of, item_of] = True
    return first, engaged[user_of]
