"""`afterclick arms`: which arms a store has, how they do, and what becomes of them."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import Annotated

import typer
from rich.box import SIMPLE_HEAD
from rich.table import Table

from cli.command import DEMO_STORE, DebugOption, StoreOption, clear_errors, console, say
from cli.inspection import open_store
from components.common import storage
from components.common.arms import (
    ArmRetirement,
    arm_of,
    find_costs,
    find_failure,
    find_recipe,
    find_retirement,
)
from components.common.days import utc_today
from components.common.errors import InputError
from components.common.layout import Store
from components.common.records import write_record
from components.common.releases import read_pointer
from components.common.trials import Trial, read_trials

app = typer.Typer(
    invoke_without_command=True, no_args_is_help=False, help="The arms of a store; `retire` and `retry` one of them."
)


@dataclass(frozen=True)
class ArmFacts:
    """One line of `afterclick arms`.

    Attributes:
        name: The arm.
        state: `in production`, `on trial`, `on probation`, `blessed`, `rejected`, `failed`, `retired` or `training`.
        recipe: The first digits of its recipe's digest.
        replicas: Models of it.
        days: Days after which it has a checkpoint.
        through: The last of them.
        against: What its newest trial compares it with.
        gain_percent: Cumulative AUC gain of that trial.
        train_seconds: Spent in training all its models, as far as checkpoints tell.
    """

    name: str
    state: str
    recipe: str
    replicas: int
    days: int
    through: str
    against: str
    gain_percent: float | None
    train_seconds: float


def describe_arms(store: Store) -> list[ArmFacts]:
    """Every arm that was ever trained, in order of its name."""
    trials, pointer, models = read_trials(store), read_pointer(store), store.trained_models()
    facts = []
    for arm in store.arms():
        recipe = find_recipe(store, arm)
        starts = [model for model in models if arm_of(model) == arm]
        days = store.checkpoint_days(arm)
        trial = next((trial for trial in reversed(trials) if trial.candidate == arm), None)
        gain = trial.newest.gain if trial and trial.newest else None
        costs = [find_costs(store, model, day) for model in starts for day in store.arm_cost_days(model)]
        facts.append(
            ArmFacts(
                name=arm,
                state=_state(store, arm, trial, pointer.arm if pointer else ""),
                recipe=recipe.recipe_digest[:12] if recipe else "",
                replicas=max(len(starts), 1),
                days=len(days),
                through=str(days[-1]) if days else "",
                against=trial.control if trial else "",
                gain_percent=gain.percent if gain else None,
                train_seconds=round(sum(cost.seconds for cost in costs if cost), 1),
            )
        )
    return facts


def _state(store: Store, arm: str, trial: Trial | None, production: str) -> str:
    if arm == production:
        return "in production"
    if find_retirement(store, arm) is not None:
        return "retired"
    if find_failure(store, arm) is not None:
        return "failed"
    if trial is None or trial.abandoned:
        return "training"
    if trial.is_open:
        return "on trial" if trial.kind == "candidate" else "on probation"
    return trial.answer


@app.callback()
@clear_errors
def arms(
    context: typer.Context,
    store: StoreOption = DEMO_STORE,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object per line.")] = False,
    debug: DebugOption = False,
) -> None:
    """The arms of a store: state, recipe, days, gain so far, and what they cost."""
    if context.invoked_subcommand:
        return
    facts = describe_arms(open_store(store))
    if as_json:
        for one in facts:
            print(json.dumps(asdict(one)))
        return
    table = Table(title="Arms", title_justify="left", pad_edge=False, collapse_padding=True, box=SIMPLE_HEAD)
    for name, least in (("arm", 0), ("state", len("in production")), ("recipe", 0), ("against", 0)):
        table.add_column(name, min_width=least)
    for name in ("gain", "starts", "days", "seconds"):
        table.add_column(name, justify="right", no_wrap=True)
    for one in facts:
        gain = "-" if one.gain_percent is None else f"{one.gain_percent:+.3f}%"
        numbers = (gain, str(one.replicas), str(one.days), f"{one.train_seconds:,.1f}")
        table.add_row(one.name.replace("_", " "), one.state, one.recipe[:6], one.against.replace("_", " "), *numbers)
    console.print(table)


@app.command()
@clear_errors
def retire(
    name: Annotated[str, typer.Argument(help="The arm.")],
    store: StoreOption = DEMO_STORE,
    reason: Annotated[str, typer.Option(help="Kept with it, and shown.")] = "by hand",
    debug: DebugOption = False,
) -> None:
    """Train and score an arm no more; its trial ends, and its checkpoints go by the retention policy."""
    opened = _with_arm(store, name)
    pointer = read_pointer(opened)
    if pointer is not None and pointer.arm == name:
        raise InputError(f"{name} is in production: what is served would not be refreshed; promote another arm first")
    retirement = ArmRetirement(arm=name, day=utc_today(), reason=reason, by_gate=False)
    write_record(opened.arm_retirement(name), retirement)
    say(f"arms.retired: {name}")


@app.command()
@clear_errors
def retry(
    name: Annotated[str, typer.Argument(help="The arm.")], store: StoreOption = DEMO_STORE, debug: DebugOption = False
) -> None:
    """Take up an arm that failed or was retired: the next run trains the days that it has missed."""
    opened = _with_arm(store, name)
    found = [uri for uri in (opened.arm_failure(name), opened.arm_retirement(name)) if storage.exists(uri)]
    if not found:
        raise InputError(f"{name} has neither failed nor been retired; there is nothing to take up")
    for uri in found:
        storage.remove(uri)
    say(f"arms.retried: {name}")


def _with_arm(store_uri: str, name: str) -> Store:
    """The store, if it has the arm."""
    store = open_store(store_uri)
    if name not in store.arms():
        raise InputError(f"{store_uri}: no arm {name!r}; its arms are {', '.join(store.arms()) or 'none'}")
    return store
