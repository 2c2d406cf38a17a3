"""Whether a rollout may go on: the new version's figures against the old one's, and limits on how they may differ."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

from components.serve.config import RolloutLimits
from components.serve.rollout_figures import Mean, ShadowFigures, VersionFigures, quantile

# What chance explains: three standard errors.
_SIGMAS = 3.0
_SLOW_SHARE = 0.9


@dataclass(frozen=True)
class Judgement:
    """What figures say of a version.

    Attributes:
        reasons: To take it back; none if there are none.
        is_enough: Whether enough requests were counted to say so.
        figures: What was compared, by name.
    """

    reasons: tuple[str, ...]
    is_enough: bool
    figures: dict[str, float]


def judge(new: VersionFigures, old: VersionFigures, limits: RolloutLimits) -> Judgement:
    """Compare what a version answered with what the other one did.

    Failures count as soon as they are too many of `min_requests`; seconds and predictions when both versions have
    answered as many.
    """
    is_enough = min(new.requests, old.requests) >= limits.min_requests
    reasons = [*_failing(new.requests, new.errors, old, limits)]
    if is_enough:
        reasons += _slow("a request", new.request_seconds, old.request_seconds, limits)
        reasons += _slow("the net", new.rank_seconds, old.rank_seconds, limits)
        for name, mean in new.predictions.items():
            reasons += _moved(name, mean, old.predictions.get(name, Mean()), limits)
    figures = {f"new_{name}": value for name, value in _named(new).items()}
    figures |= {f"old_{name}": value for name, value in _named(old).items()}
    return Judgement(tuple(reasons), is_enough, _finite(figures))


def judge_shadow(shadow: ShadowFigures, new: VersionFigures, old: VersionFigures, limits: RolloutLimits) -> Judgement:
    """Compare what a version scored in shadow with what the other one answered to the same requests."""
    is_enough = shadow.requests >= limits.min_requests
    reasons = [*_failing(shadow.requests, shadow.errors, old, limits)]
    if is_enough:
        reasons += _slow("the net", new.rank_seconds, old.rank_seconds, limits)
        for name, mean in shadow.predictions.items():
            reasons += _moved(name, mean, shadow.answered[name], limits)
        for name, mean in shadow.differences.items():
            limit = limits.max_shadow_difference
            if limit is not None and not mean.value <= limit:
                reasons.append(f"{name} differs by {mean.value:.4g} on average; max_shadow_difference = {limit}")
    figures = {"shadow_requests": shadow.requests, "shadow_errors": shadow.errors, "shadow_dropped": shadow.dropped}
    for part, means in (
        ("mean", shadow.predictions),
        ("answered_mean", shadow.answered),
        ("mean_absolute_difference", shadow.differences),
    ):
        figures |= {f"shadow_{part}_{name}": mean.value for name, mean in means.items()}
    return Judgement(tuple(reasons), is_enough, _finite(figures))


def _failing(requests: float, errors: float, old: VersionFigures, limits: RolloutLimits) -> Iterator[str]:
    """Whether so many failed that no others until `min_requests` could make up for them."""
    counted, others = max(requests, limits.min_requests), max(old.requests, limits.min_requests)
    rate, usual = errors / counted, old.errors / others
    deviation = math.sqrt(rate * (1 - rate) / counted + usual * (1 - usual) / others)
    if rate - usual - _SIGMAS * deviation > limits.max_error_increase:
        yield (
            f"{errors:.0f} of {requests:.0f} requests failed, {old.errors:.0f} of {old.requests:.0f} of the old "
            f"version; max_error_increase = {limits.max_error_increase}"
        )


def _slow(what: str, new: dict[float, float], old: dict[float, float], limits: RolloutLimits) -> Iterator[str]:
    """Compare the quantile that the new version has at least with the one that the old version has at most."""
    seconds = quantile(new, _SLOW_SHARE - _margin(new))
    usual = quantile(old, _SLOW_SHARE + _margin(old))
    if seconds > limits.max_slowdown * usual and seconds - usual > limits.min_slowdown_seconds:
        yield (
            f"{what} took up to {quantile(new, _SLOW_SHARE):.4f} s in {_SLOW_SHARE:.0%} of cases, "
            f"{quantile(old, _SLOW_SHARE):.4f} s of the old version; max_slowdown = {limits.max_slowdown}"
        )


def _margin(buckets: dict[float, float]) -> float:
    """How far off a quantile's share may be by chance."""
    return _SIGMAS * math.sqrt(_SLOW_SHARE * (1 - _SLOW_SHARE) / max(buckets.values(), default=1.0))


def _moved(name: str, new: Mean, old: Mean, limits: RolloutLimits) -> Iterator[str]:
    """Compare mean predictions; one that is no number is beyond every limit."""
    if not old.count:
        return
    deviation = math.sqrt(new.variance + old.variance) if new.squares else 0.0
    if not abs(new.value - old.value) - _SIGMAS * deviation <= limits.max_mean_change * old.value:
        yield (
            f"the mean of {name} is {new.value:.4g}, {old.value:.4g} of the old version; "
            f"max_mean_change = {limits.max_mean_change}"
        )


def _named(one: VersionFigures) -> dict[str, float]:
    return {
        "requests": one.requests,
        "errors": one.errors,
        "request_seconds_p90": quantile(one.request_seconds, _SLOW_SHARE),
        "net_seconds_p90": quantile(one.rank_seconds, _SLOW_SHARE),
        **{f"mean_{name}": mean.value for name, mean in one.predictions.items()},
    }


def _finite(figures: dict[str, float]) -> dict[str, float]:
    """Those that JSON can hold."""
    return {name: round(value, 6) for name, value in figures.items() if math.isfinite(value)}
