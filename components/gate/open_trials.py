"""Opens trials: before the first look at a day, which arms are to be judged against production from it on."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date

from components.common.arms import ArmList, ArmRecipe, find_failure, starts_of
from components.common.config import ResolvedConfig
from components.common.layout import Store
from components.common.progress import log_line
from components.common.releases import read_pointer, read_publication
from components.common.trials import Kind, Trial, open_trial, read_trials
from components.gate.config import GateConfig


def open_trials(
    store: Store, config: ResolvedConfig, pipeline: str, event_date: date, trained_through: date
) -> list[Trial]:
    """Record the trials that begin with a day, whose scores nobody has seen.

    An arm is on trial once it has a checkpoint to be scored, unless it was on trial against the same production arm
    before; the arm that was promoted over is on probation. What of `gate.alpha` each trial gets: `alpha_of_new`.

    Returns:
        The trials that were not there.
    """
    gate, pointer = config.section(GateConfig, "gate"), read_pointer(store)
    if read_publication(store, pipeline, event_date) is not None:
        return []
    arms = ArmList.of(store, config)
    recipes = _recipes_ready(store, config, arms, trained_through)
    control_recipe = recipes.pop(arms.production, None)
    if control_recipe is None:
        return []
    known = read_trials(store)
    judged = {
        (trial.candidate, trial.candidate_recipe)
        for trial in known
        if (trial.control, trial.control_recipe) == (arms.production, control_recipe) and not trial.abandoned
    }
    candidates = [arm for arm, recipe in recipes.items() if (arm, recipe) not in judged]
    replaced = pointer.replaced if pointer else ""
    kinds: dict[str, Kind] = {arm: "probation" if arm == replaced else "candidate" for arm in candidates}
    num_new = sum(kind == "candidate" for kind in kinds.values())
    alphas = {"candidate": alpha_of_new(known, event_date, gate, num_new), "probation": gate.alpha}
    opened = []
    for arm, kind in kinds.items():
        looks = gate.looks(kind)
        if not looks:
            continue
        trial = Trial(
            kind=kind,
            candidate=arm,
            control=arms.production,
            candidate_recipe=recipes[arm],
            control_recipe=control_recipe,
            first_day=event_date,
            looks=looks,
            evidence=gate.evidence,
            alpha=alphas[kind],
        )
        if open_trial(store, trial):
            opened.append(trial)
            log_line("gate", f"{event_date}: {_described(trial)}")
    return opened


def alpha_of_new(known: Sequence[Trial], event_date: date, gate: GateConfig, num_new: int) -> float:
    """What each of the trials that begin with a day may spend.

    All trials that begin within `alpha_period_days` share `alpha`: those of a day take half of what the earlier ones
    have left, in equal parts. So the chance that any equal recipe is blessed is at most alpha in any such period
    (Bonferroni), the first trial has a half, and no number of trials uses it up.
    """
    sharing = [trial for trial in known if (trial.kind, trial.evidence) == ("candidate", "confident")]
    ages = [(trial.alpha, (event_date - trial.first_day).days) for trial in sharing]
    left = gate.alpha - sum(alpha for alpha, age in ages if 0 < age < gate.alpha_period_days)
    of_day = [alpha for alpha, age in ages if age == 0]
    # A run that was killed between two trials gives the second what it would have had.
    share = left / 2 / max(len(of_day) + num_new, 1)
    return max(min(share, (left - sum(of_day)) / max(num_new, 1)), 0.0)


def _recipes_ready(store: Store, config: ResolvedConfig, arms: ArmList, trained_through: date) -> dict[str, str]:
    """Digest of the recipe of each arm of which every start will be scored."""
    ready = {}
    for arm, replicas in arms.replicas.items():
        failure = find_failure(store, arm)
        is_failed = failure is not None and failure.day <= trained_through
        starts = starts_of(arm, replicas)
        if not is_failed and all(trained_through in store.checkpoint_days(start) for start in starts):
            ready[arm] = ArmRecipe.of(config, arm).recipe_digest
    return ready


def _described(trial: Trial) -> str:
    what = "trial" if trial.kind == "candidate" else "probation"
    rule = f"alpha {trial.alpha:.4g}" if trial.evidence == "confident" else "a point estimate is enough"
    return (
        f"{what} of {trial.candidate} against {trial.control}: {len(trial.looks)} looks, the last after "
        f"{trial.looks[-1]} scored days, {rule}"
    )
