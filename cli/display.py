"""What people see in the terminal: progress while a pipeline runs, the ledger, the summary."""

from __future__ import annotations

import time
from datetime import date
from typing import Any, Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TaskID, TextColumn, TimeElapsedColumn
from rich.table import Table

from cli.inspection import newest_blessing
from components.common import storage
from components.common.arms import arm_of, find_failure, ordered
from components.common.layout import Store
from components.common.ledger import LedgerRow, read_ledger
from components.common.manifests import read_manifest
from components.common.releases import (
    ALARM_DAYS,
    DAILY,
    PRETRAINING,
    PRODUCTION_CHANNEL,
    days_withheld,
    read_pointer,
    read_publication,
)
from components.common.rollouts import read_rollout
from components.common.runs import RunOutcome
from components.common.trials import Trial, read_trials
from components.features.objectives import DEFAULT_SERVED
from components.version.manifest import VersionManifest
from pipelines.local import RunEvents


class RunDisplay:
    """Bars for the running step, plain lines above them."""

    def __init__(self, console: Console) -> None:
        """Draw on a console; without a terminal only the lines are printed."""
        # rich must keep the real stdout: kfp's is redirected to a log while a pipeline runs.
        self._console = Console(file=console.file, force_terminal=console.is_terminal)
        self._progress = Progress(
            SpinnerColumn(),
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[note]}"),
            TimeElapsedColumn(),
            console=self._console,
            transient=True,
            redirect_stdout=False,
            redirect_stderr=False,
        )
        self._bar: TaskID | None = None
        self._bar_name = ""
        self._started = 0.0
        self.daily_seconds: list[float] = []
        self.events = RunEvents(on_step=self._step, on_line=self._line, on_progress=self._advance)

    def __enter__(self) -> Self:
        """Start drawing."""
        self._progress.start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        """Stop drawing."""
        self._progress.stop()

    def begin_run(self, pipeline: str, event_date: date) -> None:
        """Announce a run."""
        self._started = time.monotonic()
        what = f"window until {event_date}" if pipeline == PRETRAINING else f"scoring {event_date}"
        self._console.print(f"[bold]{pipeline} run, {what}[/bold]", highlight=False)

    def end_run(self, pipeline: str, outcome: RunOutcome | None) -> None:
        """Say what a run did."""
        self._drop_bar()
        if outcome is None:
            return
        seconds = time.monotonic() - self._started
        if pipeline == DAILY:
            self.daily_seconds.append(seconds)
        published = outcome.published[:12] or "nothing"
        self._console.print(
            f"  {pipeline} {outcome.event_date}: blessed={outcome.blessed} published={published} "
            f"promoted={outcome.promoted} ({seconds:.0f} s)",
            highlight=False,
        )

    def _step(self, name: str) -> None:
        self._drop_bar()
        self._bar, self._bar_name = self._progress.add_task(name, total=None, note=""), name

    def _line(self, line: str) -> None:
        if line.endswith("examples written"):
            return
        self._console.print(f"  {line}", highlight=False, markup=False, soft_wrap=True)

    def _advance(self, name: str, done: int, total: int, note: str) -> None:
        if self._bar is not None:
            self._progress.update(self._bar, description=name, completed=done, total=total, note=note)

    def _drop_bar(self) -> None:
        if self._bar is not None:
            self._progress.remove_task(self._bar)
            self._bar = None


def ledger_table(store_uri: str) -> Table:
    """AUC of the served objectives on every unseen day, by arm: means over its random starts."""
    store = Store(store_uri)
    blessing, ledger = newest_blessing(store), read_ledger(store)
    served = blessing.served if blessing else DEFAULT_SERVED
    # Clicks are the first thing to look at when conversions are few.
    is_clicked = any("click" in row.scores for row in ledger)
    others = ("click",) if is_clicked and "click" not in served else ()
    table = Table(title="AUC on unseen days", title_justify="left", pad_edge=False)
    table.add_column("day")
    table.add_column("arm", min_width=len("regression"))
    for name in served:
        table.add_column(name.replace("_", "\n"), justify="right")
        table.add_column("cali-\nbration", justify="right")
    for name in others:
        table.add_column(name, justify="right")
    names = ordered([arm_of(row.arm) for row in ledger], store.arms())
    starts: dict[tuple[date, str], list[LedgerRow]] = {}
    for row in sorted(ledger, key=lambda row: (row.event_date, names.index(arm_of(row.arm)))):
        starts.setdefault((row.event_date, arm_of(row.arm)), []).append(row)
    lines = [*starts.items()]
    for number, ((day, arm), rows) in enumerate(lines):
        cells = [str(day), arm.replace("_", " ")]
        for name in served:
            scores = [row.scores[name] for row in rows if name in row.scores]
            cells += [_mean([score.auc for score in scores], 4), _mean([score.calibration for score in scores], 3)]
        cells += [_mean([row.scores[name].auc for row in rows if name in row.scores], 4) for name in others]
        last_of_day = number + 1 == len(lines) or lines[number + 1][0][0] != day
        table.add_row(*cells, end_section=last_of_day)
    return table


def _mean(values: list[float | None], digits: int) -> str:
    """Of an arm's starts; a dash if one of them is not known."""
    known = [value for value in values if value is not None]
    return f"{sum(known) / len(known):.{digits}f}" if known and len(known) == len(values) else "-"


def summary_lines(store_uri: str, prefix: str) -> list[str]:
    """The state of a store, one `prefix.name: value` a line."""
    store = Store(store_uri)
    blessing, pointer = newest_blessing(store), read_pointer(store, PRODUCTION_CHANNEL)
    lines, withheld = [f"{prefix}.days: {len(store.finished_days(DAILY))}"], tuple[str, ...]()
    if blessing is not None:
        lines += [f"{prefix}.note: {note}" for note in blessing.notes]
        lines += [f"{prefix}.released: {r.action} of {r.arm}: {'; '.join(r.reasons)}" for r in blessing.releases]
        publication = read_publication(store, blessing.pipeline, blessing.event_date)
        withheld = (*blessing.withheld, *(publication.withheld if publication else ()))
        lines += [f"{prefix}.withheld: {reason}" for reason in withheld if pointer is not None]
        rollout = read_rollout(store, blessing.pipeline, blessing.event_date)
        lines += [f"{prefix}.rollout: {rollout}"] if rollout is not None else []
    for trial in read_trials(store):
        lines += _trial_lines(trial, prefix)
    failures = [failure for arm in store.arms() if (failure := find_failure(store, arm)) is not None]
    lines += [f"{prefix}.failed: {failure.arm} on {failure.day}: {failure.reason}" for failure in failures]
    in_a_row = days_withheld(store, max(store.publication_days(DAILY), default=date.min))
    if in_a_row >= ALARM_DAYS:
        lines.append(f"{prefix}.alarm: a version was withheld on {in_a_row} days in a row")
    if pointer is not None:
        lines.append(f"{prefix}.arm: {pointer.arm}")
        lines.append(f"{prefix}.published: {pointer.version}")
        lines.append(f"{prefix}.version_folder: {store.version(pointer.version)}")
        manifest = read_manifest(store.version(pointer.version), VersionManifest)
        lines += _parity_lines(manifest, prefix)
    else:
        why = "; ".join(withheld) or "no run is finished"
        lines.append(f"{prefix}.published: nothing: {why}")
    if storage.exists(store.newest_report()):
        lines.append(f"{prefix}.report: {store.newest_report()}")
    return lines


def _trial_lines(trial: Trial, prefix: str) -> list[str]:
    """What came of a trial so far."""
    name = f"{prefix}.{'trial' if trial.kind == 'candidate' else 'probation'}.{trial.candidate}"
    newest = trial.newest
    lines = [f"{name}: {'abandoned: ' + trial.abandoned if trial.abandoned else trial.answer}"]
    if newest is None:
        return lines
    if newest.gain is not None:
        low, high = newest.gain.low, newest.gain.high
        interval = f" ({low:+.3f} to {high:+.3f})" if low is not None and high is not None else ""
        lines.append(f"{name}.gain_percent: {newest.gain.percent:+.3f}{interval} over {len(newest.days)} days")
    if not trial.abandoned:
        lines.append(f"{name}.reasons: {'; '.join(newest.reasons)}")
        lines += [f"{name}.needed: {newest.needed}"] if newest.needed else []
    return lines


def _parity_lines(manifest: VersionManifest, prefix: str) -> list[str]:
    """What INT4 tables and the ONNX export change, at most over the served objectives."""
    parity = manifest.parity
    served = [parity.objectives[name] for name in manifest.served]
    changes = [abs(one.auc_change_percent) for one in served if one.auc_change_percent is not None]
    means = [abs(one.mean_prediction_ratio - 1) for one in served if one.mean_prediction_ratio is not None]
    return [
        f"{prefix}.parity_max: {parity.max_difference:.1e}",
        f"{prefix}.int4_bytes_ratio: {parity.table_bytes.ratio:.3f}",
        f"{prefix}.int4_auc_change_max_percent: {max(changes, default=0):.3f}",
        f"{prefix}.int4_mean_change_max_percent: {100 * max(means, default=0):.3f}",
    ]


def predictions_table(version: str, rows: list[dict[str, Any]]) -> Table:
    """Probabilities by impression, or by item as a server answers."""
    table = Table(title=f"version {version[:12]}", title_justify="left")
    identifier, *objectives = rows[0] if rows else ["impression_id"]
    table.add_column(identifier, no_wrap=True, overflow="fold")
    for name in objectives:
        table.add_column(name.replace("_given_", "\ngiven ").replace("_", " "), justify="right")
    for row in rows:
        table.add_row(str(row[identifier]), *(f"{row[name]:.4f}" for name in objectives))
    return table
