"""Picks the next day to work on."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date, timedelta

from components.common.arms import ArmList, check_recipes, find_failure, starts_of
from components.common.config import ResolvedConfig
from components.common.days import parse_day, utc_today
from components.common.errors import InputError
from components.common.layout import Store
from components.common.progress import log_line
from components.common.releases import BATCH, DAILY, PRETRAINING
from components.common.store_format import claim_format
from components.features.events import DatasetConfig
from components.features.examples import EARLY, TRAINING
from components.schedule.config import ScheduleConfig
from components.sources.config import Source, parse_source
from components.sources.log_days import last_day


@dataclass(frozen=True)
class Assignment:
    """What one run works on.

    Attributes:
        due: Whether there is anything to do.
        first_day: First day to join and train on.
        trained_through: Last day that the scored models have seen.
        event_date: The day to score: the one after `trained_through`.
        as_of: Knowledge cut-off of the run.
        train_days: The days to train on after scoring, one by one; for a batch, all of them together. An arm that is
            behind the others, or new, takes more: `train_through` is where all of them end.
        train_through: The last day to train on.
        split: Which of their examples.
    """

    due: bool
    first_day: date
    trained_through: date
    event_date: date
    as_of: date
    train_days: list[date]
    train_through: date
    split: str = TRAINING

    @property
    def early_days(self) -> list[date]:
        """The days that are joined before their labels are final."""
        return self.train_days if self.split == EARLY else []


def pick_batch(store: Store, dataset: DatasetConfig, schedule: ScheduleConfig, as_of: date) -> Assignment:
    """The batch days, scored on the day after them, unless that run is finished.

    Raises:
        InputError: If the day to score is not mature at `as_of`.
    """
    last = dataset.open_day(schedule.first_day, schedule.num_batch_days - 1)
    scored = dataset.open_day(last, 1)
    due = scored not in store.finished_days(BATCH)
    if due and as_of <= dataset.mature_on(scored):
        final = dataset.mature_on(scored)
        raise InputError(
            f"the batch {schedule.first_day}..{last} is scored on {scored}, whose labels are final after {final}, and "
            f"events are known until {as_of - timedelta(days=1)}: {(final - as_of).days + 1} more days are needed; "
            "wait for them, or make schedule.first_day earlier, schedule.num_batch_days smaller or the windows of "
            "dataset.attribution shorter"
        )
    days = dataset.open_days(schedule.first_day, last)
    return Assignment(due, schedule.first_day, last, scored, as_of, days, last)


def pick_day(store: Store, dataset: DatasetConfig, schedule: ScheduleConfig, as_of: date, arms: ArmList) -> Assignment:
    """The next day after the last finished run, if its labels are final.

    Days are taken one by one in order, so a missed night is caught up by the next runs and no day is skipped. With
    `train_immature` training is ahead of scoring: a run trains up to the last day whose logs the scored day's labels
    need, which the models have not seen by then either.

    Nothing is due while no batch run is finished: a schedule may be there before it.
    """
    batches = store.finished_days(BATCH)
    if not batches:
        log_line(DAILY, f"{store.root}: no batch run is finished yet; run batch_training")
        first = dataset.open_day(schedule.first_day, schedule.num_batch_days)
        return Assignment(False, first, dataset.open_day(first, -1), first, as_of, [], first)
    finished = store.finished_days(DAILY)
    event_date = dataset.open_day(max(finished), 1) if finished else max(batches)
    before = dataset.open_day(event_date, -1)
    due = as_of > dataset.mature_on(event_date)
    if not schedule.train_immature:
        return Assignment(due, event_date, before, event_date, as_of, [event_date], event_date)
    ahead_until = dataset.mature_on(event_date)
    training = [arm for arm in arms.replicas if find_failure(store, arm) is None] or list(arms.replicas)
    models = [model for arm in training for model in starts_of(arm, arms.replicas[arm])]
    trained = min(max([before, *(day for day in store.checkpoint_days(name) if day <= ahead_until)]) for name in models)
    ahead = dataset.open_days(trained + timedelta(days=1), ahead_until)
    return Assignment(due, event_date, before, event_date, as_of, ahead, ahead_until, EARLY)


def pick_window(store: Store, dataset: DatasetConfig, schedule: ScheduleConfig, known_on: date) -> date:
    """The last day of the window that tables are pretrained on.

    Before the batch is finished that is the batch's last day: nothing that is scored may be known. After that it is the
    newest day of validated logs, for the batches to come. Tables that are there already are found by the step itself,
    which knows whether they are of the same recipe.

    Raises:
        InputError: If the batch's days are not over.
    """
    if store.finished_days(BATCH):
        through = max(day for day in store.clean_days() if day < known_on)
    else:
        through = dataset.open_day(schedule.first_day, schedule.num_batch_days - 1)
        if through >= known_on:
            raise InputError(
                f"pretraining: the window ends with the batch, on {through}, and events are known until "
                f"{known_on - timedelta(days=1)}; wait for it, or make schedule.num_batch_days smaller"
            )
    return through


def known_until(source: Source, dataset: DatasetConfig, as_of: date) -> date:
    """The knowledge cut-off: `as_of`, or the day after the last of the logs if that is earlier."""
    return min(as_of, last_day(source, dataset) + timedelta(days=1))


def main_pick_window(store_uri: str, config_uri: str, as_of: str) -> date:
    """`pick_window` under a run's configuration; an empty `as_of` means today.

    Raises:
        InputError: If the configuration has no section `pretrain`.
    """
    config = ResolvedConfig.open(config_uri)
    if not config.values.get("pretrain"):
        raise InputError("pretrain: the configuration has no such section; docs/pretraining.md says what goes in it")
    dataset, schedule, known_on = _known(config, as_of)
    claim_format(Store(store_uri))
    through = pick_window(Store(store_uri), dataset, schedule, known_on)
    log_line(PRETRAINING, f"window until {through}")
    return through


def _known(config: ResolvedConfig, as_of: str) -> tuple[DatasetConfig, ScheduleConfig, date]:
    """Data set, schedule and knowledge cut-off; an empty `as_of` means today."""
    dataset, schedule = config.section(DatasetConfig, "dataset"), config.section(ScheduleConfig, "schedule")
    asked = parse_day(as_of, "as_of") if as_of else utc_today()
    return dataset, schedule, known_until(parse_source(config.values["source"], "source"), dataset, asked)


def main_pick(store_uri: str, config_uri: str, pipeline: str, as_of: str) -> Assignment:
    """Pick under a run's configuration; an empty `as_of` means today."""
    config, store = ResolvedConfig.open(config_uri), Store(store_uri)
    dataset, schedule, known_on = _known(config, as_of)
    claim_format(store)
    if store.finished_days(BATCH):
        check_recipes(store, config)
    if pipeline == BATCH:
        chosen = pick_batch(store, dataset, schedule, known_on)
    else:
        chosen = pick_day(store, dataset, schedule, known_on, ArmList.of(store, config))
    log_line(pipeline, f"{chosen.event_date}: {'due' if chosen.due else 'nothing is due'} as of {known_on}")
    return chosen
