"""Users and items whose vectors agree where they engaged (Hsu et al. 2024)."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import FunctionCtx, once_differentiable
from torch.nn import functional

_NEVER = float("-inf")
# Of a block of logits: what a core's cache holds, or what keeps a GPU busy.
_NUMBERS_AT_ONCE = {"cpu": 2**18, "cuda": 2**26}


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
    others, engaged = randoms[:0], _Engaged.nothing(item_ids)
    if in_batch:
        first, engaged = _distinct_items(user_ids, item_ids)
        others = items[first]
    offsets = None
    if log_q:
        of_others = torch.log(shares[0][first] * len(items)) if in_batch else shares[0][:0]
        of_randoms = torch.full_like(randoms[:, 0], math.log(shares[1] * max(len(randoms), 1)))
        offsets = torch.cat([of_others.to(of_randoms), of_randoms])
    masks = _Masks(engaged, item_ids, random_ids)
    return _SoftmaxLoss.apply(users, items, torch.cat([others, randoms]), 1 / temperature, offsets, masks)


@dataclass(frozen=True)
class _Engaged:
    """Which of a batch's distinct items each pair's user engaged with.

    Attributes:
        columns: The items of each user in turn.
        starts: Where those of each pair's user begin, int64, shape (n,).
        lengths: How many there are, int64, shape (n,).
    """

    columns: Tensor
    starts: Tensor
    lengths: Tensor

    @classmethod
    def nothing(cls, like: Tensor) -> _Engaged:
        return cls(like[:0], torch.zeros_like(like), torch.zeros_like(like))

    def of(self, part: slice) -> tuple[Tensor, Tensor]:
        """Rows of a part of the batch, and columns."""
        lengths = self.lengths[part]
        rows = torch.repeat_interleave(lengths)
        within = torch.arange(len(rows), device=rows.device) - (lengths.cumsum(0) - lengths)[rows]
        return rows, self.columns[self.starts[part][rows] + within]


@dataclass(frozen=True)
class _Masks:
    """What is no negative: items that the user engaged with, random items that are the pair's own."""

    engaged: _Engaged
    items: Tensor
    randoms: Tensor

    def apply(self, logits: Tensor, part: slice) -> None:
        logits[self.engaged.of(part)] = _NEVER
        if len(self.randoms):
            of_randoms = logits[:, logits.shape[1] - len(self.randoms) :]
            of_randoms.masked_fill_(self.items[part, None] == self.randoms, _NEVER)


class _SoftmaxLoss(Function):
    """The mean of log(sum of exponentials) less the positive logit, whose gradients are made on the way.

    A block of rows at a time, which stays in the cache: neither logits nor their gradients of all rows are ever there.
    """

    @staticmethod
    def forward(
        ctx: FunctionCtx,
        users: Tensor,
        items: Tensor,
        others: Tensor,
        sharpness: Tensor,
        offsets: Tensor | None,
        masks: _Masks,
    ) -> Tensor:
        """The loss, shape ().

        Args:
            ctx: Keeps the gradients.
            users: Shape (n, dim).
            items: Their own, shape (n, dim).
            others: Candidates for negatives, shape (c, dim).
            sharpness: One over the temperature, shape ().
            offsets: That negatives' logits are reduced by, shape (c,).
            masks: Negatives that do not count.
        """
        size, loss = len(users), users.new_zeros(())
        of_users, of_items, of_others = torch.empty_like(users), torch.empty_like(items), torch.zeros_like(others)
        of_sharpness = users.new_zeros(())
        rows = max(_NUMBERS_AT_ONCE[users.device.type] // max(len(others), 1), 1)
        for start in range(0, size, rows):
            part = slice(start, start + rows)
            scaled = users[part] * sharpness
            logits, positive = scaled @ others.T, (scaled * items[part]).sum(1)
            if offsets is not None:
                logits -= offsets
            masks.apply(logits, part)
            largest = torch.maximum(logits.amax(1), positive) if len(others) else positive
            shares = logits.sub_(largest[:, None]).exp_()
            of_positive = (positive - largest).exp()
            total = shares.sum(1) + of_positive
            loss += (total.log() + largest - positive).sum() / size
            # From here on the gradients by the logits.
            shares /= (total * size)[:, None]
            by_positive = ((of_positive / total - 1) / size)[:, None]
            of_scaled = torch.addmm(by_positive * items[part], shares, others)
            of_users[part] = of_scaled * sharpness
            of_items[part] = by_positive * scaled
            of_others.addmm_(shares.T, scaled)
            of_sharpness += (of_scaled * users[part]).sum()
        ctx.save_for_backward(of_users, of_items, of_others, of_sharpness)
        return loss

    @staticmethod
    @once_differentiable
    def backward(ctx: FunctionCtx, gradient: Tensor) -> tuple[Tensor | None, ...]:
        """The gradients that are there, times the loss's own."""
        return (*(gradient * own for own in ctx.saved_tensors), None, None)  # type: ignore[attr-defined]


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


def _distinct_items(user_ids: Tensor, item_ids: Tensor) -> tuple[Tensor, _Engaged]:
    """A pair with each distinct item, int64, (d,), and which of them each pair's user engaged with."""
    items, item_of = torch.unique(item_ids, return_inverse=True)
    users, user_of = torch.unique(user_ids, return_inverse=True)
    first = torch.empty_like(items)
    first[item_of.flip(0)] = torch.arange(len(item_ids) - 1, -1, -1, device=item_ids.device)
    pairs = torch.unique(user_of * len(items) + item_of)
    lengths = torch.bincount(pairs // len(items), minlength=len(users))
    starts = lengths.cumsum(0) - lengths
    return first, _Engaged(pairs % len(items), starts[user_of], lengths[user_of])
