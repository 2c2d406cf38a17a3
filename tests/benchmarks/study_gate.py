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
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date, timedelta
from functools import cache
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import pyarrow as pa
import torch

from components.common.layout import Store
from components.common.ledger import LedgerRow, ObjectiveScore
from components.common.lineage import Lineage
from components.common.releases import DAILY
from components.common.trials import Evidence, Trial
from components.features.examples import read_examples
from components.features.hashing import splitmix64, uniform_from_hash
from components.features.objectives import DEFAULT_SERVED, OBJECTIVE_NAMES
from components.gate.config import GateConfig
from components.gate.trial_rules import TrialDays, judge_trial
from components.join.assemble import JoinJob
from components.join.run import join_days
from components.make_logs.run import make_logs
from components.ranker.auc import RankedRows, UserReplicates
from components.ranker.dataset import tensors_of
from components.ranker.prediction import predict
from components.train.trainer import Trainer
from components.train.training_state import new_state
from data_validation.logs.validate import validate_logs
from pipelines.config import RunConfig, load_config

FOLDER = Path("build/study-gate")
NUM_STARTS, REPLICAS, NUM_REPLICATES = 8, 2, 100
# True gains in percent; equal recipes get most of the histories.
GAINS = (0.0, 0.1, 0.3, 1.0)
HISTORIES = {0.0: 1000, 0.1: 100, 0.3: 100, 1.0: 200}
CHUNK = 50
ALPHA = 0.025
RULES: tuple[Evidence, ...] = ("confident", "point")
# The demo's trial, and the default one.
JOURNEY_DAYS, SIMULATED_DAYS = 10, 28


@dataclass(frozen=True)
class Source:
    """Where predictions come from: a store with examples, and the days after its batch."""

    name: str
    config: RunConfig
    store: Store
    days: list[date]

    @property
    def folder(self) -> Path:
        """Of its predictions and results."""
        return FOLDER / self.name


def journey(store_uri: str) -> Source:
    """The demo's examples and days."""
    store = Store(store_uri)
    days = store.finished_days(DAILY)
    if len(days) < JOURNEY_DAYS:
        sys.exit(f"{store_uri}: run `make demo` first")
    return Source("journey", load_config("complete_journey"), store, days[:JOURNEY_DAYS])


def simulated() -> Source:
    """Logs of the shipped simulator configuration, joined day by day, in the study's own folder."""
    values = load_config("simulator").model_dump(mode="json")
    first = date.fromisoformat(values["schedule"]["first_day"])
    last = first + timedelta(days=values["schedule"]["num_batch_days"] + SIMULATED_DAYS - 1)
    values["source"]["last_day"] = str(last + timedelta(days=10))
    config, store = RunConfig.parse(values, "simulated"), Store(str(FOLDER / "simulated" / "store"))
    as_of = config.dataset.mature_on(last) + timedelta(days=1)
    read = config.dataset.days_read(first, last, config.features.history_days)
    make_logs(store.root, config.dataset, config.source.model_dump(mode="json"), read)
    validate_logs(store.root, config.dataset, config.validation, read, as_of)
    scored = first + timedelta(days=config.schedule.num_batch_days)
    join_days(store.root, JoinJob(config.dataset, config.features, config.join, first, last, as_of, scored))
    return Source("simulated", config, store, [scored + timedelta(days=number) for number in range(SIMULATED_DAYS)])


def predict_days(source: Source, start: int) -> None:
    """Train one start of the Sparse Optimizer's recipe, and keep what it predicts of each day; the labels beside it."""
    path = source.folder / f"start-{start}.npz"
    if path.exists():
        return
    config, recipe = source.config, source.config.arms["sparse_optimizer"].start(start)
    torch.set_num_threads(recipe.num_threads)
    first = config.schedule.first_day
    batch_days = config.dataset.open_days(first, source.days[0] - timedelta(days=1))
    read = [read_examples(source.store, "training", day) for day in batch_days]
    rate = read[0][1].negative_keep_rate
    batch = tensors_of(pa.concat_tables([table for table, _ in read]), config.features, unsampled=False)
    lineage = Lineage(
        arm="study", first_day=first, trained_through=batch_days[-1], parent="", step=0, negative_keep_rate=rate
    )
    state = new_state(config.features, recipe, lineage)
    state.model.net.fit([batch])
    trainer = Trainer(state.model, state.optimizer, recipe, "study")
    for epoch in range(recipe.epochs):
        trainer.train_epoch(batch.shuffled(recipe.batch_size, recipe.seed % 1000 + trainer.step), len(batch), epoch)
    kept, facts = {}, {}
    for number, day in enumerate(source.days):
        unseen = tensors_of(read_examples(source.store, "evaluation", day)[0], config.features, unsampled=True)
        predictions = predict(state.model, rate, unseen, 4096)
        for name in DEFAULT_SERVED:
            column = OBJECTIVE_NAMES.index(name)
            rows = unseen.masks[:, column].numpy() > 0
            kept[f"{number}-{name}"] = predictions[rows, column]
            facts[f"{number}-{name}-labels"] = unseen.labels[rows, column].numpy()
            facts[f"{number}-{name}-users"] = unseen.users[rows]
        training = tensors_of(read_examples(source.store, "training", day)[0], config.features, unsampled=False)
        trainer.train_epoch(training.shuffled(recipe.batch_size, recipe.seed % 1000 + trainer.step), len(training), 0)
    np.savez(source.folder / "facts.npz", **facts)
    np.savez(path, **kept)


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
    def ranked(self, start: int, day: int, name: str, gain: float) -> RankedRows:
        """A start's rows in the order of its predictions, which know as much of the labels as the gain takes."""
        p = self._starts[start][f"{day}-{name}"].astype(np.float64).clip(1e-7, 1 - 1e-7)
        labels = self.labels(day, name)
        return RankedRows(labels, np.log(p / (1 - p)) + self.strength(gain) * (labels - p))

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
                    ranked = RankedRows(labels, np.log(p / (1 - p)) + strength * (labels - p))
                    total += float(ranked.auc(np.ones((len(labels), 1)))[0])
        return total


def ledger_of(predictions: Predictions, number: int, gain: float) -> list[LedgerRow]:
    """The ledger of one history: who is who is drawn, and so are the users."""
    generator = np.random.default_rng([number, round(gain * 1000)])
    chosen = generator.permutation(NUM_STARTS)[: 2 * REPLICAS]
    key = splitmix64(np.array([number + 1_000_003 * round(gain * 1000)]))
    rows = []
    for place, start in enumerate(chosen):
        arm, of_arm = ("baseline", 0.0) if place < REPLICAS else ("candidate", gain)
        replica = place % REPLICAS
        for day in range(predictions.num_days):
            scores = {name: _score(predictions, int(start), day, name, of_arm, key) for name in DEFAULT_SERVED}
            event_date = date(2000, 1, 1) + timedelta(days=day)
            rows.append(
                LedgerRow(
                    arm=f"{arm}.{replica}" if replica else arm,
                    event_date=event_date,
                    trained_through=event_date - timedelta(days=1),
                    checkpoint_digest="",
                    recipe_digest="",
                    examples_digest="",
                    inputs_digest="",
                    scores=scores,
                )
            )
    return rows


def _score(p: Predictions, start: int, day: int, name: str, gain: float, key: np.ndarray) -> ObjectiveScore:
    labels, users = p.labels(day, name), p.users(day, name)
    drawn = uniform_from_hash(splitmix64(splitmix64(users) ^ key))
    outer = np.searchsorted(np.cumsum(np.exp(-1.0) / np.array([1, 1, 2, 6, 24, 120, 720])), drawn, side="right")
    weights = np.column_stack([np.ones(len(labels), np.uint8), p.replicates(day, name)]) * outer[:, None]
    aucs = np.nan_to_num(p.ranked(start, day, name, gain).auc(weights), nan=0.5)
    rows, positives = int(outer.sum()), int((outer * labels).sum())
    return ObjectiveScore(
        rows=rows,
        positives=positives,
        auc=float(aucs[0]),
        pr_auc=None,
        log_loss=None,
        mean_prediction=positives / max(rows, 1),
        calibration=1.0,
        auc_replicates=tuple(aucs[1:].tolist()),
    )


def judged(rows: list[LedgerRow], evidence: Evidence, num_days: int) -> tuple[str, int]:
    """What the gate says of a history in the end, and after how many days."""
    gate = GateConfig(
        evidence=evidence,
        trial_days=num_days,
        look_every_days=5 if num_days == JOURNEY_DAYS else 7,
        num_days=5,
        min_positives=1,
    )
    first = rows[0].event_date
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
            if not gain and blessed:
                at_first = sum(days == min(blessed) for days in blessed) / len(found)
                yield f"gate.{kind}.{rule}.{source.name}.at_first_look: {at_first:.3f}"
            decided = float(np.mean([history[rule][1] for history in found]))
            yield f"gate.days_to_decision_{gain:g}pct.{rule}.{source.name}: {decided:.1f}"


def main(store_uri: str = "runs/demo") -> None:
    """Print every source's figures."""
    for source in (journey(store_uri), simulated()):
        source.folder.mkdir(parents=True, exist_ok=True)
        for start in range(NUM_STARTS):
            predict_days(source, start)
        work = [(str(source.folder), gain, first) for gain in GAINS for first in range(0, HISTORIES[gain], CHUNK)]
        with get_context("spawn").Pool(2) as pool:
            pool.map(run_chunk, work, chunksize=1)
        for line in figures(source):
            print(line, flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
