"""What runs in the pods of a pipeline: steps in their order, under the lease of the store."""

from __future__ import annotations

import importlib
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import date
from typing import Any, TypeVar

from components.common import storage
from components.common.arms import ArmList, find_failure, find_retirement
from components.common.config import ResolvedConfig
from components.common.errors import TransientError
from components.common.layout import Store
from components.common.lease import CLUSTER_SECONDS, held
from components.common.long_lived import long_lived
from components.common.progress import log_line, reported
from components.common.releases import DAILY, read_blessing
from components.common.remembered import remembering
from components.common.rollouts import read_rollout
from components.common.runs import RunOutcome
from components.features.edges import EdgesConfig
from components.features.events import DatasetConfig
from components.features.examples import newest_days
from components.schedule.run import Assignment, main_pick, main_pick_window
from pipelines.cluster import ClusterConfig

Addresses = tuple[str, str, str]
T = TypeVar("T")

# Kubernetes sets it in every pod.
IN_CLUSTER = "KUBERNETES_SERVICE_HOST"
# After a store or a runner failed although its client had tried again.
_PAUSES_SECONDS = (15, 60)
_NOTHING_DUE = "<p>nothing is due</p>"


@contextmanager
def working(step: str, store_uri: str, run_id: str, is_last: bool = False) -> Iterator[None]:
    """Do a step's work: say that it begins, hold the store's lease for the run, and end cleanly when cancelled.

    Raises:
        SystemExit: If the pod is told to end, or in place of an `InputError`.
    """
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    with reported(step), held(Store(store_uri), run_id, CLUSTER_SECONDS, is_last):
        yield


def attempted(step: str, work: Callable[[], T]) -> T:
    """Do one step of several in a pod; what may pass by itself is tried again, since all steps can be repeated."""
    with reported(step):
        for pause_seconds in _PAUSES_SECONDS:
            try:
                return work()
            except TransientError as error:
                log_line(step, f"again in {pause_seconds} s: {' '.join(str(error).split())}")
                time.sleep(pause_seconds)
        return work()


def prepare(addresses: Addresses, pipeline: str, as_of: str) -> tuple[Assignment, tuple[str, str]]:
    """From logs to examples that may be trained on, of the days that are due.

    Args:
        addresses: Of the store, of the configuration, and the run's id.
        pipeline: Whose run: `batch` or `daily`.
        as_of: Knowledge cut-off; today if empty.

    Returns:
        The days, and the pages of the logs' expectations and of the examples' statistics.
    """
    store_uri, config_uri, run_id = addresses
    with working("prepare-examples", store_uri, run_id):
        chosen = attempted("pick-days", lambda: main_pick(store_uri, config_uri, pipeline, as_of))
        pages = _prepared(store_uri, config_uri, chosen) if chosen.due else (_NOTHING_DUE, _NOTHING_DUE)
    if not chosen.due:
        with held(Store(store_uri), run_id, CLUSTER_SECONDS, is_last=True):
            pass
    return chosen, pages


def _prepared(store_uri: str, config_uri: str, chosen: Assignment) -> tuple[str, str]:
    with long_lived():
        import components.collect_edges.run
        import components.join.run
        import components.make_logs.run
        import components.online.run
        import data_validation.run

    store, span, known_on = (store_uri, config_uri), (str(chosen.first_day), str(chosen.event_date)), str(chosen.as_of)
    early_days = [*map(str, chosen.early_days)]
    attempted("make-logs", lambda: components.make_logs.run.main(*store, *span))
    attempted("deliver-vectors", lambda: components.make_logs.run.main_vectors(*store, *span))
    logs = Store(store_uri)
    with remembering(logs.log_folders(), logs.log_index()):
        expectations = attempted("validate-logs", lambda: data_validation.run.main_logs(*store, span, known_on))
        attempted("join-examples", lambda: components.join.run.main(*store, span, known_on, span[1], early_days))
        if ResolvedConfig.open(config_uri).values.get("online") is not None:
            attempted("online-features", lambda: components.online.run.main(*store, known_on))
        if _in_single_stage(config_uri):
            edge_days = _days_with_edges(store, chosen)
            attempted("collect-edges", lambda: components.collect_edges.run.main_days(*store, edge_days))
        checked = attempted("validate-examples", lambda: data_validation.run.main_examples(*store, span, early_days))
    return expectations, checked[1]


def _in_single_stage(config_uri: str) -> bool:
    """Whether an arm is trained on engagement beside its examples."""
    arms = ResolvedConfig.open(config_uri).values["arms"].values()
    return any((arm.get("pretrained") or {}).get("mode") == "single_stage" for arm in arms)


def _days_with_edges(addresses: tuple[str, str], chosen: Assignment) -> list[date]:
    """The days to train on; with a new arm, also those of its batch, as far as there are examples of them."""
    store, config = Store(addresses[0]), ResolvedConfig.open(addresses[1])
    arms = ArmList.of(store, config)
    if all(store.checkpoint_days(model) for model in arms.models):
        return chosen.train_days
    batch = newest_days(store, chosen.event_date, config.values["schedule"]["num_batch_days"])
    return sorted({*batch, *chosen.train_days})


def train_batch(addresses: Addresses, arm: str, first_day: str, last_day: str) -> None:
    """Train a new model of an arm on the days `first_day`..`last_day`."""
    _train("train-batch", addresses, arm, last_day, ("--batch", first_day, last_day))


def train_days(addresses: Addresses, arm: str, event_date: str, through: str) -> None:
    """Train an arm day by day `through` a day; if it is new, on a batch of days until `event_date` first."""
    _train("train-days", addresses, arm, through, ("--until", event_date, through))


def _train(step: str, addresses: Addresses, arm: str, last_day: str, work: tuple[str, ...]) -> None:
    store = Store(addresses[0])
    with working(step, addresses[0], addresses[2]):
        gone = find_retirement(store, arm) or find_failure(store, arm)
        if gone is not None:
            # Not even a TrainJob is started for it.
            log_line(step, f"{arm} {last_day}: out since {gone.day}: {gone.reason}; the others go on without it")
            return
        _in_processes(step, addresses, "components.train", (arm, last_day), ("--arm", arm, *work))


def evaluate(addresses: Addresses, pipeline: str, event_date: str, trained_through: str) -> dict[str, Any]:
    """Open the trials that begin with a day, then score all models on it; returns served AUCs by arm."""
    with long_lived():
        import components.evaluate.run
        import components.gate.run

    store_uri, config_uri, run_id = addresses
    run = (store_uri, config_uri, pipeline, event_date, trained_through)
    with working("evaluate", store_uri, run_id):
        components.gate.run.main_open_trials(*run)
        return components.evaluate.run.main(*run)


def _in_processes(
    step: str, addresses: Addresses, module: str, title: tuple[str, str], arguments: tuple[str, ...]
) -> None:
    """Run a module's `run.main` in this pod, or in those of a TrainJob that this one watches.

    Args:
        step: Whose resources they get.
        addresses: Of the store, of the configuration, and the run's id.
        module: Which.
        title: What is trained, and until which day: by these the job is named.
        arguments: Of `main`, beside the addresses.
    """
    store_uri, config_uri, run_id = addresses
    cluster = ResolvedConfig.open(config_uri).section(ClusterConfig, "cluster")
    given, given_arguments = cluster.of_step(step), ("--store-uri", store_uri, "--config-uri", config_uri, *arguments)
    if given.is_distributed and IN_CLUSTER in os.environ:
        from pipelines.train_jobs import TrainJob, current_namespace, job_name, run_train_job

        name, namespace = job_name(title[0], run_id, title[1]), current_namespace(cluster.namespace)
        job = TrainJob(name, namespace, given, cluster, cluster.image(step), ("-m", module, *given_arguments))
        run_train_job(job, given.start_minutes)
        return
    with long_lived():
        imported = importlib.import_module(f"{module}.run")
    imported.main([*given_arguments])


def collect_edges(addresses: Addresses, as_of: str) -> str:
    """From logs to the edges of the window that tables are to be pretrained on.

    Returns:
        The window's last day.
    """
    with long_lived():
        import components.collect_edges.run
        import components.make_logs.run
        import data_validation.run

    store_uri, config_uri, run_id = addresses
    addressed, store = (store_uri, config_uri), Store(store_uri)
    with working("collect-edges", store_uri, run_id):
        through = attempted("pick-window", lambda: main_pick_window(*addressed, as_of))
        span = _window(config_uri, through)
        attempted("make-logs", lambda: components.make_logs.run.main(*addressed, *span))
        with remembering(store.log_folders(), store.log_index()):
            attempted("validate-logs", lambda: data_validation.run.main_window(*addressed, span))
            attempted("collect-edges", lambda: components.collect_edges.run.main(*addressed, span[1]))
    return str(through)


def _window(config_uri: str, through: date) -> tuple[str, str]:
    config = ResolvedConfig.open(config_uri)
    edges = config.section(EdgesConfig, "pretrain", "edges")
    return str(edges.window(config.section(DatasetConfig, "dataset"), through)[0]), str(through)


def pretrain_tables(addresses: Addresses, through: str) -> str:
    """Pretrain on the edges of the log days until `through`; returns the page on it."""
    with working("pretrain-tables", addresses[0], addresses[2], is_last=True):
        arguments = ("--through", through)
        _in_processes("pretrain-tables", addresses, "components.pretrain", ("pretraining", through), arguments)
        return storage.read_bytes(Store(addresses[0]).report(f"pretraining-{through}")).decode()


def release(addresses: Addresses, pipeline: str, event_date: str) -> tuple[RunOutcome, dict[str, float], str]:
    """Judge, export and publish what the verdict allows, bring servers to it if some are named, report.

    Returns:
        What the run did, its figures, and the report's page.
    """
    with long_lived():
        import components.export.run
        import components.gate.run
        import components.publish.run
        import components.report.run

    store_uri, config_uri, run_id = addresses
    run = (store_uri, config_uri, pipeline, event_date)
    with working("release", store_uri, run_id, is_last=True):
        verdict = attempted("gate", lambda: components.gate.run.main(*run))
        if verdict.releases:
            attempted("export", lambda: components.export.run.main(*run))
            attempted("publish", lambda: components.publish.run.main(store_uri, pipeline, event_date))
        if pipeline == DAILY and ResolvedConfig.open(config_uri).values.get("serving"):
            # What it imports takes seconds, and most runs have no servers.
            from components.serve.run import main as roll_out

            attempted("rollout", lambda: roll_out(*run))
        page, outcome = attempted("report", lambda: components.report.run.main(*run))
    return outcome, _figures(Store(store_uri), pipeline, outcome), page


def _figures(store: Store, pipeline: str, outcome: RunOutcome) -> dict[str, float]:
    blessing = read_blessing(store, pipeline, outcome.event_date)
    figures = {
        "blessed": float(outcome.blessed),
        "published": float(bool(outcome.published)),
        "promoted": float(outcome.promoted),
    }
    rollout = read_rollout(store, pipeline, outcome.event_date)
    if rollout is not None:
        figures["rolled_out"] = float(rollout.result == "serving")
    for verdict in blessing.verdicts if blessing is not None else ():
        if verdict.gain is not None:
            figures[f"gain_percent_{verdict.candidate}"] = verdict.gain.percent
    return figures
