"""What is kept of an arm beside its checkpoints: the recipe that it was trained by, and its failure."""

from __future__ import annotations

from datetime import date
from typing import Any

from components.common.config import Config, ResolvedConfig
from components.common.errors import InputError
from components.common.layout import Store
from components.common.records import find_record, write_record

# Of an arm's section: what later runs of a trained arm may do differently.
FREE_SETTINGS = frozenset(("execution", "epochs", "test", "steps_per_point", "num_threads"))
_LABELS = ("attribution", "click_days", "good_click", "timezone", "users_without_id")
_BATCH = ("first_day", "num_batch_days")
_SAMPLING = ("negative_keep_rate", "salt")


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


def find_failure(store: Store, arm: str) -> ArmFailure | None:
    """An arm's failure, or None."""
    return find_record(store.arm_failure(arm), ArmFailure, "delete it, and the arm is tried again")


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
        uri = store.arm_recipe(arm)
        trained = find_record(uri, ArmRecipe, "delete it, and train the arm's batch again")
        if trained is not None:
            changes += trained.changes_to(ArmRecipe.of(config, arm))
    if changes:
        raise InputError(
            f"{store.root}: its arms were trained by another recipe: {'; '.join(dict.fromkeys(changes))}. A changed "
            "recipe is another model, whose days cannot be compared with these: restore the values, or use a new store"
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


def _shown(value: Any) -> str:
    return "absent" if value is None else str(value)
