"""Trains one arm: every start of it, on all batch days at once, or day by day up to where the other arms are."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import date, timedelta
from functools import partial

import torch

from components.common.arms import ArmFailure, ArmRecipe, find_failure, find_retirement, starts_of, write_recipe
from components.common.config import ResolvedConfig
from components.common.errors import InputError
from components.common.layout import Store
from components.common.progress import log_line
from components.common.records import write_record
from components.features.events import DatasetConfig
from components.features.examples import EARLY, TRAINING, newest_days
from components.features.feature_list import FeatureConfig
from components.tables.processes import joined_processes
from components.train.config import TrainConfig
from components.train.one_model import train_batch, train_day

_OWN_ERRORS: tuple[type[Exception], ...] = (FloatingPointError, MemoryError, torch.OutOfMemoryError)


def main_batch(store_uri: str, config_uri: str, arm: str, first_day: str, last_day: str) -> list[str]:
    """`train_batch` of each start of an arm of a run's configuration, on open days; as `main_days` returns."""
    config = ResolvedConfig.open(config_uri)
    days = config.section(DatasetConfig, "dataset").open_days(
        date.fromisoformat(first_day), date.fromisoformat(last_day)
    )
    of_arm = _Arm(Store(store_uri), config, arm)
    return of_arm.each_start(lambda model, recipe: [of_arm.batch(model, recipe, days)])


def main_days(store_uri: str, config_uri: str, arm: str, event_date: str, through: str) -> list[str]:
    """Bring each start of an arm from the checkpoint that it has up to a day.

    One that has a checkpoint of a day before `event_date` is trained on, day after day, however far behind it is. An
    arm that has none is new: it is trained on the newest `num_batch_days` until `event_date`, as the arms before it
    were on the first ones, and then on the days after that. Under `train_immature`, single days have the labels that
    were known when they ended.

    Returns:
        The digests of the starts' newest checkpoints; none if the arm is retired, or fails, now or before.
    """
    config = ResolvedConfig.open(config_uri)
    last, until = date.fromisoformat(event_date), date.fromisoformat(through)
    of_arm = _Arm(Store(store_uri), config, arm)
    return of_arm.each_start(lambda model, recipe: of_arm.days(model, recipe, last, until))


class _Arm:
    """One arm of a run's configuration, and how its models are brought up to a day."""

    def __init__(self, store: Store, config: ResolvedConfig, arm: str) -> None:
        self.store, self.config, self.arm = store, config, arm
        self.dataset, self.schedule = config.section(DatasetConfig, "dataset"), config.values["schedule"]
        self.features, self.recipe = config.section(FeatureConfig, "features"), config.section(TrainConfig, "arms", arm)

    def each_start(self, train: Callable[[str, TrainConfig], Iterable[str]]) -> list[str]:
        """The last digest of every start; stops at the first that fails, which is the whole arm's failure."""
        retirement = find_retirement(self.store, self.arm)
        if retirement is not None:
            log_line("train", f"{self.arm}: retired on {retirement.day}: {retirement.reason}")
            return []
        digests = []
        with joined_processes(self.recipe.execution.device):
            for number, model in enumerate(starts_of(self.arm, self.recipe.replicas)):
                digest = ""
                for digest in train(model, self.recipe.start(number)):
                    if not digest:
                        return []
                digests.append(digest)
        return digests

    def batch(self, model: str, recipe: TrainConfig, days: list[date], also: tuple[type[Exception], ...] = ()) -> str:
        """Train a batch; '' if that fails."""
        write_recipe(self.store, ArmRecipe.of(self.config, self.arm))
        train = partial(train_batch, self.store.root, model, self.features, recipe, days)
        return _contained(self.store, self.arm, days[-1], train, also)

    def days(self, model: str, recipe: TrainConfig, event_date: date, through: date) -> Iterator[str]:
        """Train what is missing until a day, one digest after the other; '' if that fails."""
        parents = [day for day in self.store.checkpoint_days(model) if day < event_date]
        if not parents:
            batch = newest_days(self.store, event_date, self.schedule["num_batch_days"])
            log_line("train", f"{model}: new: a batch of {len(batch)} days, {batch[0]}..{batch[-1]}")
            # The others were trained on these examples: what is wrong is the arm's own, such as tables to start from.
            yield self.batch(model, recipe, batch, also=(InputError,))
        before = max(parents, default=event_date)
        split = EARLY if self.schedule["train_immature"] else TRAINING
        for day in self.dataset.open_days(before + timedelta(days=1), through):
            train = partial(train_day, self.store.root, model, self.features, recipe, day, before, split)
            yield _contained(self.store, self.arm, day, train)
            before = day


def _contained(
    store: Store, arm: str, day: date, train: Callable[[], str], also: tuple[type[Exception], ...] = ()
) -> str:
    """The digest that training returns; '' if it diverges or runs out of memory, now or before: that is the arm's own.

    So is one of the errors in `also`. The failure is kept in the store, so that the other arms go on without it.
    """
    failure = find_failure(store, arm)
    if failure is None:
        try:
            return train()
        except (*_OWN_ERRORS, *also) as error:
            failure = ArmFailure(arm=arm, day=day, reason=" ".join(str(error).split()) or type(error).__name__)
            write_record(store.arm_failure(arm), failure)
    log_line("train", f"{arm} {day}: failed on {failure.day}: {failure.reason}; the others go on without it")
    return ""


def main(arguments: Sequence[str] | None = None) -> None:
    """Train a `--batch` from its first to its last day, or go on `--until` a scored day, and the last to train on."""
    parser = argparse.ArgumentParser(prog="python -m components.train", description=main.__doc__)
    for name in ("store-uri", "config-uri", "arm"):
        parser.add_argument(f"--{name}", required=True)
    work = parser.add_mutually_exclusive_group(required=True)
    work.add_argument("--batch", nargs=2)
    work.add_argument("--until", nargs=2)
    given = parser.parse_args(arguments)
    place = (given.store_uri, given.config_uri, given.arm)
    if given.batch:
        main_batch(*place, *given.batch)
    else:
        main_days(*place, *given.until)
