"""The findings of Qiu et al. 2025 on simulated ids, with this package's own ranker, optimizer and trainer.

The Sparse Optimizer, the jump of the test loss at the start of a second epoch, and two cures for it: learning rates by
row frequency (FAL), and re-drawn tables (MEDA). Prints one figure a line, then whether each finding holds, and leaves
curves in report.html. Stopped and called again it goes on.
"""

from __future__ import annotations

import argparse
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from components.train.config import TrainConfig
from tests.benchmarks.study_findings import (
    Findings,
    Results,
    batch_then_continual,
    convergence,
    frequency_scaling,
    multi_epoch,
    sparse_gain,
)
from tests.benchmarks.study_ids import Simulation, rare_rows_percent
from tests.benchmarks.study_plots import write_page
from tests.benchmarks.study_runs import Outcome, Run, StoredDays, complete, load, read

SEEDS = (0, 1, 2)
EVALUATE_AT = tuple(sorted([*(tenths / 10 for tenths in range(1, 21)), 1.05]))
QUICK = Simulation(
    num_users=3000,
    num_items=2000,
    num_campaigns=500,
    num_advertisers=50,
    train_rows=2_000,
    test_rows=1_000,
    num_days=2,
    day_rows=500,
)
_QUICK_BATCHES = 10


@dataclass(frozen=True)
class Arm:
    """How a recipe differs from the Sparse Optimizer with lazy Adam.

    Attributes:
        optimizer: Changed settings.
        epochs: Over the batch.
        continual: Whether the continual days follow.
    """

    optimizer: dict[str, Any] = field(default_factory=dict)
    epochs: int = 2
    continual: bool = False


ARMS = {
    "plain": Arm({"table_multiplier": 1.0}, epochs=1, continual=True),
    "one_epoch": Arm(epochs=1, continual=True),
    "baseline": Arm(continual=True),
    # Whether FAL does more than a lower rate of all rows.
    "half_rate": Arm({"table_multiplier": 25.0}),
    "fal_update": Arm({"frequency_adaptive": {}}, continual=True),
    "fal_gradient": Arm({"frequency_adaptive": {"apply_to": "gradient"}}),
    "meda": Arm({"reinitialize": {}}, continual=True),
    "meda_keep": Arm({"reinitialize": {"keep_above": 100}}),
}
SCALING_ARMS = {
    "fal_linear": Arm({"frequency_adaptive": {"scaling": "linear"}}),
    "fal_precomputed": Arm({"frequency_adaptive": {"counts": "precomputed"}}),
    "fal_linear_precomputed": Arm({"frequency_adaptive": {"scaling": "linear", "counts": "precomputed"}}),
}


@dataclass(frozen=True)
class Setting:
    """Steps of the dense net, and the arms to compare; tables learn at 50 times the rate."""

    batch_size: int
    learning_rate: float
    arms: dict[str, Arm]


SETTINGS = {
    "paper_rate": Setting(500, 1.5e-4, {name: ARMS[name] for name in ("plain", "one_epoch")}),
    "harsh": Setting(500, 1e-3, ARMS),
    "paper_like": Setting(1000, 5e-4, {**ARMS, **SCALING_ARMS}),
}


def ids_recipe(batch_size: int, learning_rate: float) -> TrainConfig:
    """The baseline on simulated ids."""
    return TrainConfig.model_validate(
        {
            "batch_size": batch_size,
            "num_threads": 1,
            "steps_per_point": 10,
            "model": {"embedding_dim": 16, "sequence_dim": 8, "hidden_sizes": (256, 128)},
            "optimizer": {"learning_rate": learning_rate, "table_multiplier": 50.0, "tables": "lazy_adam"},
        }
    )


def runs_of(
    setting: str, source: Simulation | StoredDays, base: TrainConfig, arms: dict[str, Arm], seed: int
) -> dict[str, Run]:
    """One run for each arm."""
    runs = {}
    for name, arm in arms.items():
        optimizer = {**base.optimizer.model_dump(), **arm.optimizer}
        values = {**base.model_dump(), "optimizer": optimizer, "epochs": arm.epochs, "seed": seed}
        runs[name] = Run(
            name=f"{setting}/{name}",
            source=source,
            recipe=TrainConfig.model_validate(values),
            evaluate_at=tuple(at for at in EVALUATE_AT if at <= arm.epochs),
            continual=arm.continual,
        )
    return runs


def study(
    plan: dict[str, list[dict[str, Run]]], folder: Path, num_processes: int
) -> dict[str, dict[str, list[Outcome]]]:
    """Carry out the runs of every setting and seed, seed by seed, and read what they found: by setting and arm."""
    seeds = zip(*plan.values(), strict=True)
    complete([run for of_seed in seeds for runs in of_seed for run in runs.values()], folder, num_processes)
    return {
        setting: {arm: [_outcome(runs[arm], folder) for runs in by_seed] for arm in by_seed[0]}
        for setting, by_seed in plan.items()
    }


def _outcome(run: Run, folder: Path) -> Outcome:
    outcome = read(run, folder)
    assert outcome is not None
    return outcome


def findings_of(results: Results) -> Findings:
    """Every experiment that the setting has arms for."""
    experiments = [convergence, sparse_gain]
    if "baseline" in results.outcomes:
        experiments += [multi_epoch, batch_then_continual]
    if "fal_linear" in results.outcomes:
        experiments.append(frequency_scaling)
    found = Findings()
    for experiment in experiments:
        part = experiment(results)
        found.figures += part.figures
        found.claims += part.claims
    return found


def conclude(
    title: str, settings: list[Results], source: Simulation | StoredDays, folder: Path, prefix: str = "study"
) -> None:
    """Print figures and verdicts, and write the page."""
    for name, share in rare_rows_percent(load(source, SEEDS[0]).batch).items():
        print(f"{prefix}.rare_rows_percent.{name}: {share:.1f}")
    found = [findings_of(results) for results in settings]
    for part in found:
        for figure in part.figures:
            print(figure.line(), flush=True)
    claims = [claim for part in found for claim in part.claims]
    for claim in claims:
        print(claim.verdict().replace("study.", "study.verdict.", 1), flush=True)
    page = write_page(folder / "report.html", title, settings, claims)
    seconds = sum(outcome.seconds for results in settings for runs in results.outcomes.values() for outcome in runs)
    print(f"{prefix}.process_seconds: {seconds:.0f}")
    print(f"{prefix}.report: {page}", flush=True)


def plan_ids(quick: bool) -> dict[str, list[dict[str, Run]]]:
    """The runs on simulated ids, by setting and seed."""
    simulation, seeds, divisor = (QUICK, SEEDS[:2], _QUICK_BATCHES) if quick else (Simulation(), SEEDS, 1)
    plan = {}
    for name, setting in SETTINGS.items():
        base = ids_recipe(setting.batch_size // divisor, setting.learning_rate)
        plan[name] = [runs_of(name, simulation, base, setting.arms, seed) for seed in seeds]
    return plan


def main(arguments: list[str] | None = None) -> None:
    """Run the study."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, default=Path("build/study-training"))
    parser.add_argument("--processes", type=int, default=2, help="runs at a time, on one thread each; 0: none")
    parser.add_argument("--quick", action="store_true", help="tiny sizes and two seeds: nothing to learn from")
    chosen = parser.parse_args(arguments)
    started = time.monotonic()
    plan = plan_ids(chosen.quick)
    outcomes = study(plan, chosen.folder / "runs", chosen.processes)
    source = plan["harsh"][0]["baseline"].source
    conclude("Simulated ids", [Results(*setting) for setting in outcomes.items()], source, chosen.folder)
    print(f"study.seconds: {time.monotonic() - started:.0f}")


if __name__ == "__main__":
    main()
