"""Writes the gate's word on one day: judges the trials that are open, and says what may be published."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date, timedelta

from components.common import storage
from components.common.arms import ArmFailure, ArmList, ArmRetirement, find_failure, find_retirement
from components.common.config import ResolvedConfig
from components.common.layout import Store
from components.common.ledger import LedgerRow, read_ledger
from components.common.progress import log_line
from components.common.records import write_record
from components.common.releases import Blessing, read_blessing, read_pointer, read_publication
from components.common.trials import Trial, read_trials, write_trial
from components.gate.config import GateConfig
from components.gate.open_trials import open_trials
from components.gate.release_rules import ReleaseRules, decide_release, inputs_digest
from components.gate.trial_rules import TrialDays, judge_trial

# What a window of some days may reach back over, where not every day is open.
_CALENDAR = 3


def judge_day(store_uri: str, config: ResolvedConfig, pipeline: str, event_date: date) -> Blessing:
    """Judge every open trial, and decide what a pipeline's run of a day may publish.

    A word stands once its run has published, and while ledger, trials and thresholds are the same: asked again after
    its model was published, the gate must not judge that model against itself.
    """
    store, gate = Store(store_uri), config.section(GateConfig, "gate")
    trials = [trial for trial in read_trials(store) if trial.first_day <= event_date]
    rows = _rows(store, [trial.before(event_date) for trial in trials], event_date, gate)
    blessing = read_blessing(store, pipeline, event_date)
    is_published = read_publication(store, pipeline, event_date) is not None
    digest = inputs_digest(rows, trials, event_date, gate)
    if blessing is None or not (is_published or blessing.ledger_digest == digest):
        blessing = _judge(store, config, gate, pipeline, event_date, trials, rows)
        write_record(store.blessing(pipeline, event_date), blessing)
    for verdict in blessing.verdicts:
        said = f"{verdict.candidate} against {verdict.control}: {verdict.answer}: {'; '.join(verdict.reasons)}"
        log_line("gate", f"{event_date}: {said}{f'; {verdict.needed}' if verdict.needed else ''}")
    for note in blessing.notes:
        log_line("gate", f"{event_date}: {note}")
    for release in blessing.releases:
        log_line("gate", f"{event_date}: {release.action} of {release.arm}: {'; '.join(release.reasons)}")
    for reason in blessing.withheld:
        log_line("gate", f"{event_date}: withheld: {reason}")
    return blessing


def _rows(store: Store, trials: Sequence[Trial], event_date: date, gate: GateConfig) -> list[LedgerRow]:
    """Of the days of the trials that are open, and of the newest ones."""
    since = event_date - timedelta(days=_CALENDAR * gate.num_days)
    return read_ledger(store, event_date, min([since, *(trial.first_day for trial in trials if trial.is_open)]))


def _judge(
    store: Store,
    config: ResolvedConfig,
    gate: GateConfig,
    pipeline: str,
    event_date: date,
    trials: Sequence[Trial],
    rows: Sequence[LedgerRow],
) -> Blessing:
    pointer = read_pointer(store)
    _forget_retirements(store, config, event_date)
    arms = ArmList.of(store, config)
    failures = {arm: failure for arm in arms.replicas if (failure := find_failure(store, arm)) is not None}
    judged = []
    for trial in trials:
        earlier = trial.before(event_date)
        now = _judged(earlier, rows, event_date, arms, failures, gate) if earlier.is_open else earlier
        if now != trial:
            write_trial(store, now)
        judged.append(now)
    rules = ReleaseRules(rows, event_date, pointer, arms.production, judged, gate)
    notes = tuple(f"{arm} failed on {failure.day}: {failure.reason}" for arm, failure in failures.items())
    inactive = frozenset(trial.candidate for trial in judged if trial.candidate not in arms.replicas)
    blessing = decide_release(pipeline, rules, notes, inactive | failures.keys())
    _retire(store, gate, judged, blessing)
    return blessing


def _judged(
    trial: Trial,
    rows: Sequence[LedgerRow],
    event_date: date,
    arms: ArmList,
    failures: dict[str, ArmFailure],
    gate: GateConfig,
) -> Trial:
    """A trial with the day's verdict, or why it ended without one."""
    ended = ""
    if trial.control != arms.production:
        ended = f"{arms.production} is in production now"
    elif trial.candidate not in arms.replicas:
        ended = f"{trial.candidate} is trained no more"
    elif trial.candidate in failures:
        ended = f"{trial.candidate} failed: {failures[trial.candidate].reason}"
    if ended:
        log_line("gate", f"{event_date}: the trial of {trial.candidate} against {trial.control} ends: {ended}")
        return trial.model_copy(update={"abandoned": ended, "abandoned_on": event_date})
    replicas = (arms.replicas[trial.candidate], arms.replicas.get(trial.control, 1))
    verdict = judge_trial(trial, TrialDays.of(trial, rows, event_date, replicas), event_date, gate)
    return trial.model_copy(update={"verdicts": (*trial.verdicts, verdict)})


def _retire(store: Store, gate: GateConfig, trials: Sequence[Trial], blessing: Blessing) -> None:
    """Retire the arms that this day decided against, if the configuration says so."""
    if gate.on_rejection != "retire":
        return
    day = blessing.event_date
    reasons = {
        trial.candidate: f"rejected on trial against {trial.control}"
        for trial in trials
        if trial.decided_on == day and trial.answer == "rejected"
    }
    if any(release.action == "return" for release in blessing.releases):
        reasons[blessing.production] = "turned out worse than the arm that it had replaced"
    for arm, reason in reasons.items():
        write_record(store.arm_retirement(arm), ArmRetirement(arm=arm, day=day, reason=reason, by_gate=True))


def _forget_retirements(store: Store, config: ResolvedConfig, event_date: date) -> None:
    """Take back what an earlier word on this day, or on a later one, said."""
    for arm in config.values["arms"]:
        retirement = find_retirement(store, arm)
        if retirement is not None and retirement.by_gate and retirement.day >= event_date:
            storage.remove(store.arm_retirement(arm))


def main(store_uri: str, config_uri: str, pipeline: str, event_date: str) -> Blessing:
    """`judge_day` under a run's configuration."""
    return judge_day(store_uri, ResolvedConfig.open(config_uri), pipeline, date.fromisoformat(event_date))


def main_open_trials(store_uri: str, config_uri: str, pipeline: str, event_date: str, trained_through: str) -> None:
    """`open_trials` under a run's configuration, before anybody scores the day."""
    config, days = ResolvedConfig.open(config_uri), map(date.fromisoformat, (event_date, trained_through))
    open_trials(Store(store_uri), config, pipeline, *days)
