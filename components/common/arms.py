"""What is kept of an arm beside its checkpoints: its recipe, its failure, its retirement, and what it cost."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import date
from typing import Any

from components.common.config import Config, ResolvedConfig
from components.common.digests import digest_json
from components.common.errors import InputError
from components.common.layout import Store
from components.common.ledger import NOT_ARMS
from components.common.records import find_record, write_record
from components.common.releases import read_pointer

# Of an arm's section: what later runs of a trained arm may do differently.
FREE_SETTINGS = frozenset(("execution", "epochs", "test", "steps_per_point", "num_threads"))
_LABELS = ("attribution", "click_days", "good_click", "timezone", "users_without_id")
_BATCH = ("first_day", "num_batch_days")
_SAMPLING = ("negative_keep_rate", "salt")
_NAME = re.compile(r"[a-z][a-z0-9_]{0,39}")
_RETRY = "`afterclick arms retry {}` takes it up again"


def check_arm_name(name: str) -> None:
    """Check a name that an arm is to have in file names, logs and pages.

    Raises:
        ValueError: If it cannot have it.
    """
    if not _NAME.fullmatch(name) or name in NOT_ARMS:
        raise ValueError(
            f"{name!r} cannot be an arm's name: lower-case letters, digits and _, at most 40, beginning with a letter, "
            f"and none of {', '.join(NOT_ARMS)}"
        )


def starts_of(arm: str, replicas: int) -> list[str]:
    """The names of an arm's models: its own, and `fal.1`, `fal.2` of its other random starts."""
    return [arm, *(f"{arm}.{number}" for number in range(1, replicas))]


def arm_of(model: str) -> str:
    """The arm of which a model is one start."""
    return model.partition(".")[0]


@dataclass(frozen=True)
class ArmList:
    """The arms that a configuration has, but for those that are retired.

    Attributes:
        production: The arm in production, or the one that is to be the first.
        replicas: By arm, in the configuration's order.
    """

    production: str
    replicas: dict[str, int]

    @classmethod
    def of(cls, store: Store, config: ResolvedConfig) -> ArmList:
        """The arms of a run; which is in production the registry says, once something is published.

        Raises:
            InputError: If the arm in production is not among the configuration's.
        """
        values, pointer = config.values["arms"], read_pointer(store)
        production = pointer.arm if pointer else config.values["production"]
        if production not in values:
            raise InputError(
                f"arms: {production} is in production in {store.root} and not among {list(values)}; without it there "
                "is nothing to compare with, and production is not refreshed: put it back"
            )
        active = [arm for arm in values if find_retirement(store, arm) is None]
        return cls(production, {arm: values[arm].get("replicas", 1) for arm in active})

    @property
    def models(self) -> list[str]:
        """The names of all their models."""
        return [model for arm, replicas in self.replicas.items() for model in starts_of(arm, replicas)]


class ArmRecipe(Config):
    """All that decides what an arm's model is.

    Attributes:
        arm: Its name.
        values: By section of the configuration.
    """

    arm: str
    values: dict[str, Any]

    @classmethod
    def of(cls, config: ResolvedConfig, arm: str) -> ArmRecipe:
        """The recipe that a configuration has for an arm."""
        values = config.values
        train = {name: value for name, value in values["arms"][arm].items() if name not in FREE_SETTINGS}
        return cls(
            arm=arm,
            values={
                "features": values["features"],
                "dataset": {name: values["dataset"][name] for name in _LABELS},
                "join": {name: values["join"][name] for name in _SAMPLING},
                "schedule": {name: values["schedule"][name] for name in _BATCH},
                f"arms.{arm}": train,
            },
        )

    @property
    def recipe_digest(self) -> str:
        """Which recipe it is, whatever its arm is called."""
        return digest_json([*self.values.values()])

    def changes_to(self, other: ArmRecipe) -> list[str]:
        """Each field that differs, with its old and its new value."""
        return changed_fields("", self.values, other.values)


class ArmFailure(Config):
    """Why an arm is trained no further.

    Attributes:
        arm: Its name.
        day: The last day of what was being trained on.
        reason: What went wrong.
    """

    arm: str
    day: date
    reason: str


class ArmRetirement(Config):
    """Why an arm is neither trained nor scored any more.

    Attributes:
        arm: Its name.
        day: The scored day of the run that retired it, or the day on which somebody did.
        reason: Why.
        by_gate: Whether a trial's verdict did.
    """

    arm: str
    day: date
    reason: str
    by_gate: bool


class ArmCosts(Config):
    """What it took to train one model until a day.

    Attributes:
        seconds: From the first batch to the checkpoint.
        examples: Rows, each as often as it was seen.
    """

    seconds: float
    examples: int


def find_failure(store: Store, arm: str) -> ArmFailure | None:
    """An arm's failure, or None."""
    return find_record(store.arm_failure(arm), ArmFailure, _RETRY.format(arm))


def find_retirement(store: Store, arm: str) -> ArmRetirement | None:
    """An arm's retirement, or None."""
    return find_record(store.arm_retirement(arm), ArmRetirement, _RETRY.format(arm))


def find_costs(store: Store, arm: str, through: date) -> ArmCosts | None:
    """What it took to train a model until a day, if that is known."""
    return find_record(store.arm_costs(arm, through), ArmCosts, "delete it: nothing else reads it")


def find_recipe(store: Store, arm: str) -> ArmRecipe | None:
    """The recipe that an arm was trained by, or None."""
    return find_record(store.arm_recipe(arm), ArmRecipe, "restore it: an arm's days are of one recipe")


def write_recipe(store: Store, recipe: ArmRecipe) -> None:
    """Keep the recipe of an arm whose batch is being trained."""
    write_record(store.arm_recipe(recipe.arm), recipe)


def check_recipes(store: Store, config: ResolvedConfig) -> None:
    """Check that no arm that was trained has another recipe now.

    Raises:
        InputError: Naming every field that changed, before anything is written.
    """
    changes: list[str] = []
    for arm in config.values["arms"]:
        trained = find_recipe(store, arm)
        if trained is not None and find_retirement(store, arm) is None:
            changes += trained.changes_to(ArmRecipe.of(config, arm))
    if changes:
        raise InputError(
            f"{store.root}: its arms were trained by another recipe: {'; '.join(dict.fromkeys(changes))}. A changed "
            "recipe is another model, whose days cannot be compared with these: restore the values, and give the "
            "changed arm a new name; what all arms share needs a new store"
        )


def changed_fields(path: str, old: Any, new: Any) -> list[str]:
    """Each field below a path that differs between two configurations, with its new and its old value."""
    if isinstance(old, dict) and isinstance(new, dict):
        names = [*old, *(name for name in new if name not in old)]
        dotted = {name: f"{path}.{name}" if path else str(name) for name in names}
        return [text for name in names for text in changed_fields(dotted[name], old.get(name), new.get(name))]
    if isinstance(old, list) and isinstance(new, list) and all(isinstance(item, dict) for item in (*old, *new)):
        named = [{item.get("name", number): item for number, item in enumerate(items)} for items in (old, new)]
        return changed_fields(path, *named)
    return [] if old == new else [f"{path}: {_shown(new)}, was {_shown(old)}"]


def ordered(models: Iterable[str], arms: Iterable[str]) -> list[str]:
    """Names of the ledger in the order of the arms, their starts beside them, and what is no arm last."""
    place = {arm: number for number, arm in enumerate([*arms, *NOT_ARMS])}
    return sorted(set(models), key=lambda model: (place.get(arm_of(model), len(place)), model))


def _shown(value: Any) -> str:
    return "absent" if value is None else str(value)
