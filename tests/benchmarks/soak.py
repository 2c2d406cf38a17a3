"""Sixty daily runs of two stores with the same logs: one is left in peace, in the other each run is killed once.

Both get the same three days delivered again, an arm that diverges and a version that is withheld; one finds its disk
full as well. In the end both must have decided every day, each once, and hold the same ledger.

    python -m tests.benchmarks.soak FOLDER              both stores, side by side
    python -m tests.benchmarks.soak FOLDER STORE SEED   one of them, killing with a seed unless it is empty
"""

from __future__ import annotations

import json
import os
import random
import resource
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import date, timedelta
from multiprocessing import forkserver
from pathlib import Path
from statistics import mean
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import yaml

from components.common import storage
from components.common.arms import find_failure
from components.common.layout import Store
from components.common.releases import BATCH, DAILY, read_publication
from components.features.events import LOG_NAMES
from components.make_logs.run import split_days
from components.make_logs.simulator import simulate
from components.sources.config import SimulatorSource
from pipelines import warm_steps
from pipelines.config import RunConfig, load_config
from pipelines.local import StepFailed, run_schedule
from tests.benchmarks.soak_faults import DIVERGING

NUM_DAYS, ARM = 60, "sparse_optimizer"
# By the number of the daily run: which days' logs come once more with fewer rows, counted back from the scored one.
DELIVERED_AGAIN = {12: 0, 27: 1, 41: 2}
WITHHELD, FULL_DISK, DIVERGED = 20, 34, 50
DISTURBED, UNDISTURBED = "disturbed", "undisturbed"


def _values(folder: Path, **export: float) -> dict[str, Any]:
    """The shipped simulator configuration on Parquet logs, small, with short retention."""
    values = yaml.safe_load(Path("pipelines/configs/simulator.yaml").read_text())
    values["source"] = {
        "kind": "parquet",
        **{name: {"uri": str(folder / "logs" / name)} for name in LOG_NAMES},
    }
    values["schedule"] |= {"num_batch_days": 4}
    values["train"] |= {"num_threads": 1, "epochs": 1, "replicas": 1}
    values["gate"] |= {"min_positives": 5, "min_day_positives": 1, "min_auc": 0.5, "max_refresh_loss_percent": 50.0}
    values["gate"] |= {"calibration_sigmas": 6.0, "on_blessing": "experiment", "on_rejection": "keep"}
    values["gate"] |= {"evidence": "point", "trial_days": 100}
    values["evaluation"] = {"num_replicates": 20, "regression_days": 7}
    values["retention"] = {"checkpoint_days": 7, "versions": 5, "report_days": 14}
    values["export"] = export
    return values


def _config(folder: Path, **export: float) -> RunConfig:
    path = folder / "config.yaml"
    path.write_text(yaml.safe_dump(_values(folder, **export), sort_keys=False))
    return load_config(str(path))


def _deliver_logs(folder: Path, config: RunConfig) -> None:
    last = config.schedule.first_day + timedelta(days=config.schedule.num_batch_days + NUM_DAYS + 8)
    source = SimulatorSource(
        kind="simulator",
        last_day=last,
        impressions_per_day=1000,
        num_users=2000,
        num_campaigns=200,
        checkout_given_click=0.2,
        checkout_given_view=0.1,
    )
    impressions, actions, _ = simulate(source, config.dataset)
    for name, table in zip(LOG_NAMES, (impressions, actions), strict=True):
        for day, part in split_days(table):
            path = _log_file(folder, name, day)
            path.parent.mkdir(parents=True)
            pq.write_table(part, path)


def _log_file(folder: Path, log_name: str, day: date) -> Path:
    return folder / "logs" / log_name / f"event_date={day}" / "part-00000.parquet"


def _deliver_again(folder: Path, day: date) -> None:
    """Leave out every seventh impression, and the actions that name it."""
    paths = {name: _log_file(folder, name, day) for name in LOG_NAMES}
    impressions, actions = (pq.read_table(path) for path in paths.values())
    kept = pc.not_equal(pc.bit_wise_and(impressions["impression_id"].cast(pa.int64()), 7), 0)
    missing = impressions.filter(pc.invert(kept))["impression_id"]
    tables = (impressions.filter(kept), actions.filter(pc.invert(pc.is_in(actions["impression_id"], missing))))
    for path, table in zip(paths.values(), tables, strict=True):
        pq.write_table(table, path.with_suffix(".new"))
        os.replace(path.with_suffix(".new"), path)


@dataclass
class _Soak:
    """One store, day after day."""

    folder: Path
    random: random.Random | None
    seconds: list[float] = field(default_factory=list)
    megabytes: list[float] = field(default_factory=list)
    counts: dict[str, int] = field(default_factory=lambda: {"killed": 0, "disk_full": 0, "taken_twice": 0})

    @property
    def store(self) -> Store:
        return Store(str(self.folder / "store"))

    def run(self) -> None:
        config = _config(self.folder)
        _deliver_logs(self.folder, config)
        self._day(config, 0)
        for number in range(1, NUM_DAYS + 1):
            limits = {"max_auc_change_percent": 1e-9, "max_mean_change": 1e-9} if number == WITHHELD else {}
            if number == DIVERGED:
                os.environ[DIVERGING] = ARM
            started = time.monotonic()
            self._day(_config(self.folder, **limits), number)
            self.seconds.append(time.monotonic() - started)
            self.megabytes.append(storage.num_bytes(self.store.root) / 1e6)
            print(f"{self.folder.name} {number}: {self.seconds[-1]:.1f} s, {self.megabytes[-1]:.1f} MB", flush=True)
        (self.folder / "figures.json").write_text(json.dumps(self._figures()))

    def _day(self, config: RunConfig, number: int) -> None:
        again = DELIVERED_AGAIN.get(number)
        scored = config.schedule.first_day + timedelta(days=config.schedule.num_batch_days + number - 1)
        if again is not None and self.random is None:
            _deliver_again(self.folder, scored - timedelta(days=again))
        if self.random is not None and number:
            disturb = self._disk_full if number == FULL_DISK else self._killing
            with disturb(self.random):
                was_decided = self._attempt(config, number)
            if again is not None:
                assert not was_decided, "delivered again between a crash and its retry"
                _deliver_again(self.folder, scored - timedelta(days=again))
        while len(self.store.finished_days(DAILY)) < number or not self.store.finished_days(BATCH):
            if not self._attempt(config, number):
                raise SystemExit(f"day {number} fails without a reason of ours")

    def _attempt(self, config: RunConfig, number: int) -> bool:
        """Whether the day's run ends well."""
        before = {pipeline: self.store.finished_days(pipeline) for pipeline in (BATCH, DAILY)}
        as_of = config.schedule.first_day + timedelta(days=config.schedule.num_batch_days + NUM_DAYS + 8)
        try:
            for pipeline, outcome in run_schedule(config, self.store.root, as_of, number):
                assert outcome is not None, "what is run is due"
                self.counts["taken_twice"] += outcome.event_date in before[pipeline]
        except StepFailed as error:
            print(f"{self.folder.name} {number}: {error}", flush=True)
            self.counts["disk_full"] += "File too large" in str(error) and self.store.root in str(error)
            return False
        return True

    @contextmanager
    def _killing(self, chance: random.Random) -> Iterator[None]:
        """Kill one step with SIGKILL at a random moment."""
        over = threading.Event()
        after = chance.uniform(0, 0.5 * self.seconds[-1]) if self.seconds else 5.0

        def kill() -> None:
            over.wait(after)
            while not over.is_set():
                steps = _steps()
                if steps:
                    os.kill(steps[0], 9)
                    self.counts["killed"] += 1
                    return
                over.wait(0.01)

        killer = threading.Thread(target=kill)
        killer.start()
        try:
            yield
        finally:
            over.set()
            killer.join()

    @contextmanager
    def _disk_full(self, chance: random.Random) -> Iterator[None]:
        """Let the kernel refuse files of more than some kilobytes to every step."""
        pid, unlimited = _fork_server(), (resource.RLIM_INFINITY, resource.RLIM_INFINITY)
        resource.prlimit(pid, resource.RLIMIT_FSIZE, (chance.randrange(10_000, 60_000), resource.RLIM_INFINITY))
        try:
            yield
        finally:
            resource.prlimit(pid, resource.RLIMIT_FSIZE, unlimited)

    def _figures(self) -> dict[str, Any]:
        finished = [str(day) for day in self.store.finished_days(DAILY)]
        withheld = read_publication(self.store, DAILY, date.fromisoformat(finished[WITHHELD - 1]))
        return {
            "seconds": self.seconds,
            "megabytes": self.megabytes,
            "finished": finished,
            "withheld": bool(withheld and withheld.withheld),
            "diverged": find_failure(self.store, ARM) is not None,
            **self.counts,
        }


def _fork_server() -> int:
    forkserver.ensure_running()
    pid = forkserver._forkserver._forkserver_pid  # type: ignore[attr-defined]
    assert isinstance(pid, int)
    return pid


def _steps() -> list[int]:
    pid = _fork_server()
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def _ledger(store: Store) -> dict[str, bytes]:
    return {str(path.relative_to(store.root)): path.read_bytes() for path in Path(store.root, "ledger").rglob("*.json")}


def _soak_both(folder: Path) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    seed = str(random.SystemRandom().randrange(2**32))
    running = []
    for name, given in ((DISTURBED, seed), (UNDISTURBED, "")):
        (folder / name).mkdir(parents=True)
        log = (folder / f"{name}.log").open("w")
        command = [sys.executable, "-W", "ignore", "-m", "tests.benchmarks.soak", str(folder), name, given]
        running.append(subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT))
    codes = [process.wait() for process in running]
    if any(codes):
        raise SystemExit(f"a store got stuck; see {folder}/*.log (seed {seed})")
    figures = {name: json.loads((folder / name / "figures.json").read_text()) for name in (DISTURBED, UNDISTURBED)}
    disturbed, quiet = figures[DISTURBED], figures[UNDISTURBED]
    same_days = disturbed["finished"] == quiet["finished"]
    print(f"soak.seed: {seed}")
    print(f"soak.days_decided: {len(disturbed['finished']) if same_days else 'not the same'}")
    print(f"soak.days_taken_twice: {disturbed['taken_twice'] + quiet['taken_twice']}")
    print(f"soak.runs_killed: {disturbed['killed']}")
    print(f"soak.disk_full_named: {disturbed['disk_full']}")
    print(f"soak.withheld: {disturbed['withheld'] and quiet['withheld']}")
    print(f"soak.diverged: {disturbed['diverged'] and quiet['diverged']}")
    ledgers = [_ledger(Store(str(folder / name / "store"))) for name in (DISTURBED, UNDISTURBED)]
    print(f"soak.ledger_rows: {len(ledgers[0])}")
    print(f"soak.ledgers_equal: {ledgers[0] == ledgers[1]}")
    print(f"soak.seconds_per_day_first10: {mean(quiet['seconds'][:10]):.1f}")
    print(f"soak.seconds_per_day_last10: {mean(quiet['seconds'][-10:]):.1f}")
    for day in (NUM_DAYS // 2, NUM_DAYS):
        print(f"soak.store_mb_day{day}: {quiet['megabytes'][day - 1]:.1f}")


def main() -> None:
    """Soak both stores, or one."""
    folder, *one = sys.argv[1:]
    if not one:
        _soak_both(Path(folder))
        return
    name, seed = one
    warm_steps.PRELOADED.append("tests.benchmarks.soak_faults")
    _Soak(Path(folder, name), random.Random(int(seed)) if seed else None).run()


if __name__ == "__main__":
    main()
