"""How often the gate blesses an equal recipe, and how often a better one: resampled histories of real predictions.

Eight random starts of one recipe are trained on the demo's examples and on simulated ones, as the pipelines would, and
score each continual day before they are trained on it. A history draws which starts are the control and which the
candidate, and resamples users over all its days; the gate then judges it day by day, by its own code. For true gains
the candidate's predictions are told a little of the labels, so much that the gain over all users is the one that is
named.

Everything is kept in build/study-gate: a second call goes on. Prints one figure a line.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import date, timedelta
from functools import cache
from multiprocessing import get_context
from pathlib import Path

import numpy as np

from components.common.ledger import LedgerRow, ObjectiveScore
from components.common.trials import Evidence, Trial
from components.features.hashing import splitmix64, uniform_from_hash
from components.features.objectives import DEFAULT_SERVED
from components.gate.config import GateConfig
from components.gate.trial_rules import TrialDays, judge_trial
from components.ranker.auc import UserReplicates
from tests.benchmarks.study_gate_predictions import JOURNEY_DAYS, Source, journey, predict_days, simulated

NUM_STARTS, REPLICAS, NUM_REPLICATES = 8, 2, 100
# True gains in percent; equal recipes get most of the histories.
GAINS = (0.0, 0.1, 0.3, 1.0)
HISTORIES = {0.0: 1000, 0.1: 100, 0.3: 100, 1.0: 200}
CHUNK = 50
ALPHA = 0.025
_POISSON_CUMULATIVE = np.cumsum(np.exp(-1.0) / np.array([1, 1, 2, 6, 24, 120, 720]))
RULES: tuple[Evidence, ...] = ("confident", "point")


class Predictions:
    """What the starts predicted, the labels and the users, by day and objective."""

    def __init__(self, folder: Path) -> None:
        """Read what `predict_days` kept."""
        self._facts = np.load(folder / "facts.npz")
        self._starts = [np.load(folder / f"start-{start}.npz") for start in range(NUM_STARTS)]
        self.num_days = len(self._facts.files) // len(DEFAULT_SERVED) // 2
        self._strengths: dict[float, float] = {0.0: 0.0}

    @cache  # noqa: B019
    def labels(self, day: int, name: str) -> np.ndarray:
        """0 or 1."""
        return np.asarray(self._facts[f"{day}-{name}-labels"])

    @cache  # noqa: B019
    def users(self, day: int, name: str) -> np.ndarray:
        """Hashed."""
        return np.asarray(self._facts[f"{day}-{name}-users"])

    @cache  # noqa: B019
    def replicates(self, day: int, name: str) -> np.ndarray:
        """Weights of the gate's bootstrap."""
        return UserReplicates(self.users(day, name)).weights(range(NUM_REPLICATES))

    @cache  # noqa: B019
    def order(self, start: int, day: int, name: str, gain: float) -> np.ndarray:
        """A start's rows in the order of its predictions, which know as much of the labels as the gain takes."""
        p = self._starts[start][f"{day}-{name}"].astype(np.float64).clip(1e-7, 1 - 1e-7)
        return np.argsort(np.log(p / (1 - p)) + self.strength(gain) * (self.labels(day, name) - p), kind="stable")

    def strength(self, gain: float) -> float:
        """How much a candidate must be told of the labels to gain so many percent over all starts, days and users."""
        if gain not in self._strengths:
            low, high = 0.0, 2.0
            base = self._sum_of_aucs(0.0)
            for _ in range(18):
                middle = (low + high) / 2
                reached = (self._sum_of_aucs(middle) / base - 1) * 100
                low, high = (middle, high) if reached < gain else (low, middle)
            self._strengths[gain] = (low + high) / 2
        return self._strengths[gain]

    def _sum_of_aucs(self, strength: float) -> float:
        total = 0.0
        for day in range(self.num_days):
            for name in DEFAULT_SERVED:
                labels = self.labels(day, name)
                for start in range(0, NUM_STARTS, 2):
                    p = self._starts[start][f"{day}-{name}"].astype(np.float64).clip(1e-7, 1 - 1e-7)
                    order = np.argsort(np.log(p / (1 - p)) + strength * (labels - p), kind="stable")
                    total += float(weighted_aucs(order, labels, np.ones((len(labels), 1), np.int32))[0])
        return total


def weighted_aucs(order: np.ndarray, labels: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """`RankedRows.auc` of predictions without ties, several times faster: only positives are looked at twice."""
    is_positive, weights = labels[order] > 0, weights[order]
    below = np.cumsum(weights * ~is_positive[:, None], axis=0, dtype=np.int32)
    own = weights[is_positive].astype(np.float64)
    pairs = own.sum(axis=0) * below[-1]
    return np.where(pairs > 0, (own * below[is_positive]).sum(axis=0) / np.maximum(pairs, 1), 0.5)


def ledger_of(p: Predictions, number: int, gain: float) -> list[LedgerRow]:
    """The ledger of one history: who is who is drawn, and so are the users."""
    generator = np.random.default_rng([number, round(gain * 1000)])
    chosen = generator.permutation(NUM_STARTS)[: 2 * REPLICAS]
    names = [("baseline", 0.0, r) for r in range(REPLICAS)] + [("candidate", gain, r) for r in range(REPLICAS)]
    models = [(f"{arm}.{r}" if r else arm, int(start), of) for (arm, of, r), start in zip(names, chosen, strict=True)]
    key = splitmix64(np.array([number + 1_000_003 * round(gain * 1000)]))
    rows = []
    for day in range(p.num_days):
        scores: dict[str, dict[str, ObjectiveScore]] = {model: {} for model, *_ in models}
        for name in DEFAULT_SERVED:
            labels, users = p.labels(day, name), p.users(day, name)
            drawn = uniform_from_hash(splitmix64(splitmix64(users) ^ key))
            outer = np.searchsorted(_POISSON_CUMULATIVE, drawn, side="right").astype(np.int32)
            weights = np.column_stack([outer, p.replicates(day, name) * outer[:, None]])
            counts = {"rows": int(outer.sum()), "positives": int((outer * labels).sum())}
            for model, start, of_arm in models:
                aucs = weighted_aucs(p.order(start, day, name, of_arm), labels, weights)
                scores[model][name] = ObjectiveScore(
                    **counts,
                    auc=float(aucs[0]),
                    pr_auc=None,
                    log_loss=None,
                    mean_prediction=counts["positives"] / max(counts["rows"], 1),
                    calibration=1.0,
                    auc_replicates=tuple(aucs[1:].tolist()),
                )
        rows += [_row(model, day, scores[model]) for model, *_ in models]
    return rows


def _row(model: str, day: int, scores: dict[str, ObjectiveScore]) -> LedgerRow:
    event_date = date(2000, 1, 1) + timedelta(days=day)
    return LedgerRow(
        arm=model,
        event_date=event_date,
        trained_through=event_date - timedelta(days=1),
        checkpoint_digest="",
        recipe_digest="",
        examples_digest="",
        inputs_digest="",
        scores=scores,
    )


def gate_of(evidence: Evidence, num_days: int) -> GateConfig:
    """The demo's gate, or the default one."""
    every = 5 if num_days == JOURNEY_DAYS else 7
    return GateConfig(evidence=evidence, trial_days=num_days, look_every_days=every, num_days=5, min_positives=1)


def judged(rows: list[LedgerRow], evidence: Evidence, num_days: int) -> tuple[str, int]:
    """What the gate says of a history in the end, and after how many days."""
    first, gate = rows[0].event_date, gate_of(evidence, num_days)
    trial = Trial(
        kind="candidate",
        candidate="candidate",
        control="baseline",
        candidate_recipe="",
        control_recipe="",
        first_day=first,
        looks=gate.looks("candidate"),
        evidence=evidence,
        alpha=ALPHA,
    )
    for number in trial.looks:
        day = first + timedelta(days=number - 1)
        replicas = (REPLICAS, REPLICAS) if evidence == "confident" else (1, 1)
        verdict = judge_trial(trial, TrialDays.of(trial, rows, day, replicas), day, gate)
        if verdict.answer != "undecided":
            return verdict.answer, number
    raise AssertionError("the last look decides")


@cache
def _predictions(folder: str) -> Predictions:
    return Predictions(Path(folder))


def run_chunk(work: tuple[str, float, int]) -> None:
    """Judge a chunk of histories, and keep what came of each."""
    folder, gain, first = work
    path = Path(folder) / f"histories-{gain}-{first}.json"
    if path.exists():
        return
    predictions, found = _predictions(folder), []
    for number in range(first, first + CHUNK):
        rows = ledger_of(predictions, number, gain)
        found.append({rule: judged(rows, rule, predictions.num_days) for rule in RULES})
    path.with_suffix(".new").write_text(json.dumps(found))
    path.with_suffix(".new").rename(path)


def figures(source: Source) -> Iterator[str]:
    """One line each."""
    for gain in GAINS:
        paths = sorted(source.folder.glob(f"histories-{gain}-*.json"))
        found = [history for path in paths for history in json.loads(path.read_text())]
        for rule in RULES:
            blessed = [days for history in found for answer, days in [history[rule]] if answer == "blessed"]
            share = len(blessed) / len(found)
            error = np.sqrt(share * (1 - share) / len(found))
            kind = "false_bless" if not gain else f"power_{gain:g}pct"
            yield f"gate.{kind}.{rule}.{source.name}: {share:.3f}"
            yield f"gate.{kind}.{rule}.{source.name}.standard_error: {error:.3f} of {len(found)} histories"
            if not gain:
                first = gate_of(rule, len(source.days)).looks("candidate")[0]
                at_first = sum(days == first for days in blessed) / len(found)
                yield f"gate.{kind}.{rule}.{source.name}.at_first_look: {at_first:.3f}"
            decided = float(np.mean([history[rule][1] for history in found]))
            yield f"gate.days_to_decision_{gain:g}pct.{rule}.{source.name}: {decided:.1f}"


def main() -> None:
    """Print every source's figures."""
    for make in (journey, simulated):
        source = make()
        source.folder.mkdir(parents=True, exist_ok=True)
        for start in range(NUM_STARTS):
            predict_days(source, start)
        work = [(str(source.folder), gain, first) for gain in GAINS for first in range(0, HISTORIES[gain], CHUNK)]
        with get_context("spawn").Pool(2) as pool:
            pool.map(run_chunk, work, chunksize=1)
        for line in figures(source):
            print(line, flush=True)


if __name__ == "__main__":
    main()
