"""The life of one store: arms come, are promoted, rejected, fail and go back, and no file is deleted by hand."""

from __future__ import annotations

from datetime import date, timedelta
from pathlib import Path

from cli.arm_commands import retry
from components.common.arms import find_failure, find_recipe, find_retirement
from components.common.layout import Store
from components.common.ledger import read_ledger
from components.common.lineage import Lineage
from components.common.manifests import read_manifest
from components.common.releases import Pointer, read_blessing, read_pointer
from components.common.runs import RunOutcome
from components.common.trials import Trial, read_trials
from components.ranker.checkpoint import CheckpointManifest
from pipelines.config import load_config
from pipelines.local import run_schedule
from tests.conftest import small_values, write_config

FIRST = date(2026, 1, 11)
BASELINE = {"optimizer": {"table_multiplier": 1}}
SPARSE = {"optimizer": {"table_multiplier": 50}}
DIVERGING = {"optimizer": {"learning_rate": 1e30}}
# The served head learns nothing: whatever promotes it, it is worse.
IDLE = {"objective_weights": {"click": 0.0}}
OPEN = {"min_gain_percent": -100.0, "max_objective_loss_percent": 100.0, "num_days": 1, "trial_days": 1}
CLOSED = {**OPEN, "min_gain_percent": 100.0}
SURE = {"evidence": "confident", "start_sd_percent": 0.3, "look_every_days": 1, "probation_days": 2, "trial_days": 2}


class _Life:
    """A store, and what the runs of each of its days did."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.store = folder, Store(str(folder / "store"))

    def run(self, number: int, gate: dict, **arms: dict) -> RunOutcome:
        """The daily run with a number, from 1, or the batch run, under this gate and these arms."""
        values = small_values() | {"served": ["click"]}
        values["arms"], values["gate"] = arms, values["gate"] | gate
        config = load_config(str(write_config(self.folder / f"{number}.yaml", values)))
        *_, (_, outcome) = run_schedule(config, self.store.root, date(2026, 2, 1), number)
        assert outcome is not None and outcome.event_date == FIRST + timedelta(days=max(number - 1, 0))
        return outcome

    @property
    def production(self) -> Pointer:
        found = read_pointer(self.store)
        assert found is not None
        return found

    def trial(self, candidate: str, control: str = "baseline") -> Trial:
        found = {(trial.candidate, trial.control): trial for trial in read_trials(self.store)}
        return found[candidate, control]

    def lineage(self, arm: str) -> Lineage:
        day = self.store.checkpoint_days(arm)[0]
        return read_manifest(self.store.checkpoint(arm, day), CheckpointManifest).lineage


def test_life_of_a_store(tmp_path):
    life = _Life(tmp_path)
    store = life.store

    life.run(0, CLOSED, baseline=BASELINE, sparse=SPARSE | {"seed": 1}, diverging=DIVERGING)
    assert life.production.arm == "baseline" and life.production.arm_since == date.min
    failure = find_failure(store, "diverging")
    assert failure is not None and "finite" in failure.reason and store.checkpoint_days("diverging") == []
    rejected = life.trial("sparse")
    assert (rejected.answer, rejected.first_day, rejected.decided_on) == ("rejected", FIRST, FIRST)
    retirement = find_retirement(store, "sparse")
    assert retirement is not None and retirement.by_gate and retirement.day == FIRST

    life.run(1, CLOSED, baseline=BASELINE, sparse=SPARSE | {"seed": 1}, diverging=DIVERGING, idle=IDLE)
    served = life.production.version
    assert store.checkpoint_days("sparse") == [FIRST - timedelta(days=1)], "a retired arm is trained no more"
    assert store.checkpoint_days("idle") == [FIRST], "a new arm's batch ends where the others are"
    batch = life.lineage("idle")
    assert (batch.first_day, batch.trained_through) == (FIRST - timedelta(days=3), FIRST)

    outcome = life.run(2, OPEN, baseline=BASELINE, idle=IDLE, another_diverging=DIVERGING | {"seed": 3})
    second = FIRST + timedelta(days=1)
    assert outcome.blessed and outcome.promoted and life.trial("idle").answer == "blessed"
    assert (life.production.arm, life.production.replaced, life.production.arm_since) == ("idle", "baseline", second)
    assert life.production.version != served and find_failure(store, "another_diverging") is not None

    outcome = life.run(3, SURE, baseline=BASELINE, idle=IDLE)
    probation = life.trial("baseline", "idle")
    assert (probation.kind, probation.alpha, probation.looks) == ("probation", 0.05, (1, 2))
    assert probation.answer == "blessed" and outcome.promoted and not outcome.blessed
    blessing = read_blessing(store, "daily", outcome.event_date)
    assert blessing is not None and [release.action for release in blessing.releases] == ["return"]
    assert "idle turned out worse" in blessing.releases[0].reasons[0]
    assert life.production.arm == "baseline" and life.production.replaced == ""
    gone = find_retirement(store, "idle")
    assert gone is not None and "worse than the arm that it had replaced" in gone.reason
    page = Path(store.newest_report()).read_text()
    assert "Probation: baseline against idle" in page and "taken back to production" in page

    retry("sparse", store.root)
    arms = {"sparse": SPARSE | {"seed": 1}, "diverging": DIVERGING, "again": SPARSE | {"seed": 2}}
    outcome = life.run(4, SURE, baseline=BASELINE, **arms)
    assert outcome.published and not outcome.promoted and life.production.arm == "baseline"
    assert {row.arm for row in read_ledger(store, since=outcome.event_date)} == {"baseline", "served"}
    assert {trial.candidate for trial in read_trials(store)} == {"sparse", "idle", "baseline"}, "nobody is tried twice"
    missed = [FIRST + timedelta(days=number) for number in range(-1, 4)]
    assert store.checkpoint_days("sparse") == missed, "taken up again, it catches up day by day"
    assert find_recipe(store, "again") is not None and store.checkpoint_days("again") == [outcome.event_date]
