"""Lazy Adam's update as one Triton kernel: a row's weight and moments are read and written once."""

from __future__ import annotations

import triton
import triton.language as tl
from torch import Tensor


@triton.jit
def _update_rows(  # type: ignore[no-untyped-def]
    weight, exp_avg, exp_avg_sq, rows, gradients, on_gradient, rates, of_second,
    beta1, beta2, eps, dim: tl.constexpr, width: tl.constexpr,
):  # fmt: skip
    number = tl.program_id(0)
    row = tl.load(rows + number)
    columns = tl.arange(0, width)
    inside = columns < dim
    places = row * dim + columns
    gradient = tl.load(gradients + number * dim + columns, mask=inside, other=0.0) * tl.load(on_gradient + number)
    first = tl.load(exp_avg + places, mask=inside, other=0.0)
    second = tl.load(exp_avg_sq + places, mask=inside, other=0.0)
    first += (gradient - first) * (1 - beta1)
    second = second * beta2 + gradient * gradient * (1 - beta2)
    tl.store(exp_avg + places, first, mask=inside)
    tl.store(exp_avg_sq + places, second, mask=inside)
    update = first / (tl.sqrt(second * tl.load(of_second + number)) + eps) * tl.load(rates + number)
    old = tl.load(weight + places, mask=inside, other=0.0)
    tl.store(weight + places, old - update, mask=inside)


def update_rows(
    weight: Tensor,
    exp_avg: Tensor,
    exp_avg_sq: Tensor,
    rows: Tensor,
    gradients: Tensor,
    factors: tuple[Tensor, Tensor, Tensor],
    betas: tuple[float, float],
    eps: float,
) -> None:
    """Update some rows in place.

    Args:
        weight: Shape (rows, dim), contiguous, float32.
        exp_avg: First moments, likewise.
        exp_avg_sq: Second moments, likewise.
        rows: Different rows, int64, shape (u,).
        gradients: Their gradients, shape (u, dim).
        factors: On each row's gradient, on its step, which is the rate with the correction of the first moment, and on
            its second moment, 1 / (1 - beta2^t); float32, shape (u,) each.
        betas: Adam's decays.
        eps: Added to the root of the corrected second moment.
    """
    if len(rows) == 0:
        return
    dim = weight.shape[1]
    on_gradient, rates, of_second = (factor.contiguous() for factor in factors)
    _update_rows[(len(rows),)](
        weight, exp_avg, exp_avg_sq, rows, gradients.contiguous(), on_gradient, rates, of_second,
        betas[0], betas[1], eps, dim=dim, width=triton.next_power_of_2(dim),
    )  # fmt: skip
