"""Watches the servers while a step of a rollout stays."""

from __future__ import annotations

import time
from dataclasses import dataclass

from components.common.deployments import Deployment
from components.common.progress import log_line
from components.serve.config import RolloutLimits
from components.serve.rollout_figures import Counted, shadow_figures, version_figures
from components.serve.rollout_judge import Judgement, judge, judge_shadow

_PAUSE_SECONDS, _SAY_SECONDS = 0.5, 30.0


@dataclass(frozen=True)
class Verdict:
    """What came of a step.

    Attributes:
        reasons: To take the version back; none if it may go on.
        is_fault: Whether they are faults of the version.
        figures: What was compared, by name.
    """

    reasons: tuple[str, ...]
    is_fault: bool
    figures: dict[str, float]


def hold(step: Deployment, counted: Counted, hold_seconds: float, limits: RolloutLimits) -> Verdict:
    """Let a step stay until it has been long enough, and enough requests came; less if limits are passed.

    Args:
        step: In whose phase `other` scores requests in shadow, answers some, or both.
        counted: What the rankers count.
        hold_seconds: How long it stays at least.
        limits: How much worse `other` may be than `current`.
    """
    started = said_at = time.monotonic()
    while True:
        counted.ask()
        judgement = _judged(step, counted, limits)
        now = time.monotonic()
        if judgement.reasons:
            return Verdict(judgement.reasons, True, judgement.figures)
        is_over = judgement.is_enough or now - started >= limits.wait_seconds
        if now - started >= hold_seconds and is_over:
            break
        if now - said_at > _SAY_SECONDS:
            said_at = now
            log_line("rollout", f"watching: {_counts(judgement)}{_unread(counted)}")
        time.sleep(_PAUSE_SECONDS)
    if judgement.is_enough:
        log_line("rollout", f"within its limits: {_counts(judgement)}")
        return Verdict((), False, judgement.figures)
    few = f"too few requests to judge by: {_counts(judgement)}; min_requests = {limits.min_requests}{_unread(counted)}"
    if step.phase == "routing" and limits.few_requests == "roll_back":
        return Verdict((few,), False, judgement.figures)
    # After the shadow come shares, in which the version is judged by what it answers.
    log_line("rollout", f"{few}; it goes on")
    return Verdict((), False, judgement.figures)


def _judged(step: Deployment, counted: Counted, limits: RolloutLimits) -> Judgement:
    since, ever = counted.since, counted.ever
    new, old = version_figures(since, step.other), version_figures(since, step.current)
    if old.requests < limits.min_requests:
        # The new version has all users, or nearly: what the old one did before.
        old = version_figures(ever, step.current)
    shadow = judge_shadow(shadow_figures(since, step.other), new, old, limits)
    if step.phase != "routing":
        return shadow
    answered = judge(new, old, limits)
    reasons = answered.reasons + (shadow.reasons if step.shadow_share else ())
    return Judgement(tuple(dict.fromkeys(reasons)), answered.is_enough, answered.figures | shadow.figures)


def _counts(judgement: Judgement) -> str:
    names = ("new_requests", "new_errors", "old_requests", "old_errors", "shadow_requests", "shadow_errors")
    return ", ".join(f"{name} {judgement.figures[name]:.0f}" for name in names if name in judgement.figures)


def _unread(counted: Counted) -> str:
    return "".join(f"; {address} does not give its metrics: {why}" for address, why in counted.unread.items())
