"""What a training study found: figures with their standard error over the seeds, and a verdict on each claim."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
from scipy.stats import rankdata

from components.features.objectives import OBJECTIVE_NAMES
from tests.benchmarks.study_runs import Evaluation, Outcome

_NOT_GIVEN = "not given here"
# Qiu et al. 2025: what is known of its figures 5 to 9, by arm and objective.
_PAPER_JUMPS = {
    ("baseline", "checkout_given_click"): "+0.75",
    ("fal_update", "checkout_given_click"): "+0.65",
    ("fal_gradient", "checkout_given_click"): "+0.65",
    ("baseline", "add_to_cart_given_click"): "+1.19",
    ("fal_update", "add_to_cart_given_click"): "+0.23",
    ("fal_gradient", "add_to_cart_given_click"): "+0.23",
}
_PAPER_FINALS = "-0.47 to -0.83 on rare heads"
CURVE_ARMS = ("baseline", "half_rate", "fal_update", "fal_gradient", "meda", "meda_keep")
BATCH_ARMS = ("two_epochs", "two_epochs_fal", "two_epochs_meda")
SCALING_ARMS = ("fal_update", "fal_linear", "fal_precomputed", "fal_linear_precomputed")
# The same runs, as the batch before continual days.
_RUN_OF = {"two_epochs": "baseline", "two_epochs_fal": "fal_update", "two_epochs_meda": "meda"}
_BY_OBJECTIVE = ("jump_percent", "final_vs_baseline_percent")
_SMOOTHED_SHARE = 0.1


@dataclass(frozen=True)
class Finding:
    """A figure, a value for each seed, beside the paper's."""

    name: str
    values: np.ndarray
    paper: str = _NOT_GIVEN
    layout: str = "+.2f"

    def line(self) -> str:
        """`name: mean (se, paper)`."""
        mean, error = mean_and_error(self.values)
        return f"{self.name}: {mean:{self.layout}} (se {error:{self.layout.lstrip('+')}}, paper {self.paper})"


@dataclass(frozen=True)
class Claim:
    """Something that the paper found: the mean of `values` has the sign of `sign`."""

    name: str
    says: str
    values: np.ndarray
    sign: int

    def verdict(self) -> str:
        """Whether that is so here, by two standard errors over the seeds."""
        mean, error = mean_and_error(self.values)
        if not error < np.inf or np.isnan(mean):
            outcome = "does not hold here: too few seeds or labels to say"
        elif mean * self.sign > 2 * error:
            outcome = "holds"
        elif mean * self.sign < -2 * error:
            outcome = "does not hold here: the opposite does"
        else:
            outcome = "does not hold here: within two standard errors of none"
        return f"{self.name}: {outcome} ({self.says}: {mean:+.3g}, se {error:.2g})"


@dataclass
class Findings:
    """Figures and claims of one setting."""

    figures: list[Finding] = field(default_factory=list)
    claims: list[Claim] = field(default_factory=list)


@dataclass(frozen=True)
class Results:
    """Outcomes of one setting, e.g. `harsh`: one for each seed, by arm."""

    setting: str
    outcomes: dict[str, list[Outcome]]
    names: str = "study.{experiment}.{setting}"

    def prefix(self, experiment: str) -> str:
        """What the names of an experiment's figures begin with."""
        return self.names.format(experiment=experiment, setting=self.setting)

    def tests(self, arm: str, at: float, value: Callable[[Evaluation], tuple]) -> np.ndarray:
        """Losses or AUCs of the test examples after `at` epochs, shape (seeds, objectives)."""
        found = [next(test for test in outcome.tests if test.at == at) for outcome in self.outcomes[arm]]
        return np.array([value(test) for test in found], dtype=np.float64)

    def losses(self, arm: str, at: float) -> np.ndarray:
        """Test losses after `at` epochs, shape (seeds, objectives)."""
        return self.tests(arm, at, lambda test: test.losses)

    def tested_epochs(self, arm: str) -> list[float]:
        """Epochs after which the test examples were scored."""
        return [test.at for test in self.outcomes[arm][0].tests]

    def positives(self) -> np.ndarray:
        """Positives among the batch examples, shape (seeds, objectives)."""
        return np.array([outcome.positives for outcome in self.outcomes["one_epoch"]])

    def training_losses(self, arm: str) -> tuple[np.ndarray, np.ndarray]:
        """Steps, and the total training loss of the first epoch averaged over the tenth before, (seeds, steps)."""
        first = [[point for point in outcome.training if point["epoch"] == 0] for outcome in self.outcomes[arm]]
        totals = np.array([[sum(point[name] for name in OBJECTIVE_NAMES) for point in points] for points in first])
        width = max(round(totals.shape[1] * _SMOOTHED_SHARE), 1)
        sums = np.cumsum(np.pad(totals, ((0, 0), (1, 0))), axis=1)
        steps = np.array([point["step"] for point in first[0]])[width - 1 :]
        return steps, (sums[:, width:] - sums[:, :-width]) / width

    def gains(self, arm: str, control: str) -> np.ndarray:
        """Cumulative AUC gain in percent after each continual day, (seeds, days, objectives and all of them)."""
        return np.array([_gain(*pair) for pair in zip(self._days(arm), self._days(control), strict=True)])

    def _days(self, arm: str) -> np.ndarray:
        outcomes = self.outcomes[_RUN_OF.get(arm, arm)]
        return np.array([[day.aucs for day in outcome.days] for outcome in outcomes], dtype=np.float64)


def _gain(treatment: np.ndarray, control: np.ndarray) -> np.ndarray:
    # A day without both classes has no AUC in either arm.
    sums = [np.nan_to_num(aucs).cumsum(axis=0) for aucs in (treatment, control)]
    treated, controlled = (np.column_stack([total, total.sum(axis=1)]) for total in sums)
    with np.errstate(invalid="ignore"):
        return (treated / controlled - 1) * 100


def mean_and_error(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean over the seeds, the first axis, and its standard error; infinite for one seed."""
    mean, count = values.mean(axis=0), len(values)
    return mean, values.std(axis=0, ddof=1) / np.sqrt(count) if count > 1 else np.full_like(mean, np.inf)


def convergence(results: Results) -> Findings:
    """Figure 3: training loss with the Sparse Optimizer and without."""
    prefix, found = results.prefix("convergence"), Findings()
    curves = {arm: results.training_losses(arm) for arm in ("plain", "one_epoch")}
    steps, sparse = curves["one_epoch"]
    final = curves["plain"][1][:, -1]
    for arm, name in (("plain", "plain"), ("one_epoch", "sparse_optimizer")):
        found.figures.append(Finding(f"{prefix}.{name}.training_loss", curves[arm][1][:, -1], layout=".4f"))
        test = results.losses(arm, 1.0).sum(axis=1)
        found.figures.append(Finding(f"{prefix}.{name}.test_loss", test, layout=".4f"))
    reached = [_first_step(steps, curve, target) for curve, target in zip(sparse, final, strict=True)]
    found.figures.append(Finding(f"{prefix}.steps_to_plain_training_loss", np.array(reached), layout=".0f"))
    share = np.array(reached) / steps[-1] * 100
    found.figures.append(Finding(f"{prefix}.steps_to_plain_training_loss_percent", share, layout=".0f"))
    found.figures.append(Finding(f"{prefix}.epochs_to_plain_test_loss", _epochs_to_plain(results), layout=".2f"))
    gap = sparse[:, -1] - final
    found.claims.append(Claim(f"{prefix}.faster", "training loss against plain, nats", gap, -1))
    gap = (results.losses("one_epoch", 1.0) - results.losses("plain", 1.0)).sum(axis=1)
    found.claims.append(Claim(f"{prefix}.better", "test loss against plain, nats", gap, -1))
    return found


def _first_step(steps: np.ndarray, losses: np.ndarray, target: float) -> float:
    below = losses <= target
    return float(steps[below.argmax()]) if below.any() else np.nan


def _epochs_to_plain(results: Results) -> np.ndarray:
    """When the Sparse Optimizer's test loss reaches what plain Adam ends with, by linear interpolation."""
    at = results.tested_epochs("one_epoch")
    losses = np.stack([results.losses("one_epoch", epoch).sum(axis=1) for epoch in at], axis=1)
    targets = results.losses("plain", 1.0).sum(axis=1)
    # Flipped, since interpolation wants growing losses; their running minimum falls.
    falling = np.minimum.accumulate(losses, axis=1)[:, ::-1]
    pairs = zip(targets, falling, strict=True)
    return np.array([np.interp(target, curve, at[::-1], left=np.nan) for target, curve in pairs])


def sparse_gain(results: Results) -> Findings:
    """Figure 4: what the Sparse Optimizer gains over continual days."""
    found, name = Findings(), results.prefix("sparse_optimizer")
    final = _report_gains(found, name, results.gains("one_epoch", "plain"))
    found.claims.append(Claim(f"{name}.gains", "cumulative AUC gain over plain, percent", final, 1))
    return found


def _report_gains(found: Findings, name: str, gains: np.ndarray) -> np.ndarray:
    for number, objective in enumerate((*OBJECTIVE_NAMES, "all")):
        found.figures.append(Finding(f"{name}.{objective}.auc_gain_percent", gains[:, -1, number]))
    return gains[:, -1, -1]


def multi_epoch(results: Results) -> Findings:
    """Figures 5 to 8: test loss by objective over two epochs."""
    prefix, found = results.prefix("multi_epoch"), Findings()
    totals: dict[str, dict[str, np.ndarray]] = {}
    jumps = {}
    for arm in CURVE_ARMS:
        start, end = results.losses(arm, 1.0), results.losses(arm, 2.0)
        against = {
            "jump_percent": (results.losses(arm, 1.1), start),
            "early_jump_percent": (results.losses(arm, 1.05), start),
            "final_percent": (end, start),
        }
        if arm != "baseline":
            against["final_vs_baseline_percent"] = (end, results.losses("baseline", 2.0))
        totals[arm] = {key: _percent(a.sum(axis=1), b.sum(axis=1)) for key, (a, b) in against.items()}
        found.figures += [Finding(f"{prefix}.{arm}.{key}", values) for key, values in totals[arm].items()]
        jumps[arm] = _percent(*against["jump_percent"])
        for key in [key for key in _BY_OBJECTIVE if key in against]:
            by_objective = _percent(*against[key])
            for number, name in enumerate(OBJECTIVE_NAMES):
                paper = _paper_figure(arm, name, key)
                found.figures.append(Finding(f"{prefix}.{arm}.{name}.{key}", by_objective[:, number], paper))
    found.claims = _multi_epoch_claims(prefix, totals)
    sparsity = rankdata(-results.positives(), axis=1)
    alike = [np.corrcoef(ranks, rankdata(jump))[0, 1] for ranks, jump in zip(sparsity, jumps["baseline"], strict=True)]
    says = "rank correlation of the heads' sparsity and jump"
    found.claims.append(Claim(f"{prefix}.sparser_heads_overfit_more", says, np.array(alike), 1))
    return found


def _percent(losses: np.ndarray, start: np.ndarray) -> np.ndarray:
    return (losses / start - 1) * 100


def _paper_figure(arm: str, objective: str, key: str) -> str:
    if key == "jump_percent":
        return _PAPER_JUMPS.get((arm, objective), _NOT_GIVEN)
    conversion = objective.startswith(("checkout", "add_to_cart"))
    return _PAPER_FINALS if conversion and arm.startswith("fal_") else _NOT_GIVEN


def _multi_epoch_claims(prefix: str, totals: dict[str, dict[str, np.ndarray]]) -> list[Claim]:
    base = totals["baseline"]
    claims = [
        Claim(f"{prefix}.baseline_jumps", "test loss 0.1 epochs after the boundary, percent", base["jump_percent"], 1)
    ]
    for arm in ("fal_update", "fal_gradient"):
        less = totals[arm]["jump_percent"] - base["jump_percent"]
        claims.append(Claim(f"{prefix}.{arm}_jumps_less", "jump against the baseline's, points", less, -1))
    for arm in CURVE_ARMS[2:]:
        final = totals[arm]["final_vs_baseline_percent"]
        claims.append(Claim(f"{prefix}.{arm}_ends_lower", "test loss against two plain epochs, percent", final, -1))
    more = totals["fal_update"]["final_vs_baseline_percent"] - totals["half_rate"]["final_vs_baseline_percent"]
    claims.append(Claim(f"{prefix}.fal_is_more_than_half_the_rate", "points against half the rate", more, -1))
    return claims


def batch_then_continual(results: Results) -> Findings:
    """Figure 9: continual days after batches of one epoch and of two."""
    prefix, found = results.prefix("batch_epochs"), Findings()
    final = {arm: _report_gains(found, f"{prefix}.{arm}", results.gains(arm, "one_epoch")) for arm in BATCH_ARMS}
    says = "cumulative AUC gain over one epoch, percent"
    found.claims.append(Claim(f"{prefix}.two_epochs_lose", says, final["two_epochs"], -1))
    for arm in BATCH_ARMS[1:]:
        found.claims.append(Claim(f"{prefix}.{arm}_gain", says, final[arm], 1))
        more = final[arm] - final["two_epochs"]
        found.claims.append(Claim(f"{prefix}.{arm}_above_two_epochs", "gain against two plain epochs, points", more, 1))
    return found


def frequency_scaling(results: Results) -> Findings:
    """Table 1: ways to scale FAL, and to count."""
    prefix, found = results.prefix("fal_scaling"), Findings()
    for at, when in ((1.0, "one_epoch"), (2.0, "two_epochs")):
        log = results.losses("fal_update", at).sum(axis=1)
        for arm in SCALING_ARMS:
            name = f"{prefix}.{arm.replace('fal_update', 'fal_log')}.{when}"
            total = results.losses(arm, at).sum(axis=1)
            aucs = np.nanmean(results.tests(arm, at, lambda test: test.aucs), axis=1)
            found.figures.append(Finding(f"{name}.test_loss", total, layout=".4f"))
            found.figures.append(Finding(f"{name}.mean_auc", aucs, layout=".4f"))
            if arm != "fal_update":
                gap = _percent(total, log)
                found.figures.append(Finding(f"{name}.test_loss_vs_log_percent", gap))
                if arm == "fal_linear":
                    says = "test loss of linear against log, percent"
                    found.claims.append(Claim(f"{prefix}.log_beats_linear_after_{when}", says, gap, 1))
    return found
