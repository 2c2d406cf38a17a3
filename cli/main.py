"""The command line."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Annotated

from components.common.long_lived import long_lived

with long_lived():
    import typer

    from cli import (
        arm_commands,
        demo,
        deploy_command,
        log_commands,
        prediction_commands,
        pretrained_tables,
        rollout_commands,
        schema_commands,
        serve,
    )
    from cli.command import DEMO_STORE, ConfigOption, DebugOption, StoreOption, clear_errors, console, say
    from cli.display import ledger_table, summary_lines
    from cli.due_runs import run_due
    from components.common.days import parse_day
    from components.common.errors import InputError
    from components.common.layout import Store

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    help="Trains, gates and ships ads-conversion models every day.\n\n"
    "Start with [bold]afterclick demo[/bold]: real logs to a published, gated model in a few minutes. Then write a "
    "YAML file for your own logs and [bold]afterclick run[/bold] it; "
    "[bold]afterclick show[/bold] says what is served and why.",
)
app.command()(demo.demo)
app.command()(deploy_command.deploy)
app.command()(prediction_commands.predict)
app.command()(prediction_commands.request)
app.add_typer(schema_commands.app, name="schema")
app.add_typer(arm_commands.app, name="arms")
app.add_typer(serve.app, name="serve")


ArmOption = Annotated[str, typer.Option(help="Name of an arm of the configuration.")]


@app.command()
@clear_errors
def run(
    config: ConfigOption,
    store: StoreOption,
    as_of: Annotated[
        str,
        typer.Option(
            help="Only events before this UTC day are seen; today, or the end of generated logs, if not given."
        ),
    ] = "",
    max_days: Annotated[
        int | None,
        typer.Option(min=0, help="Stop when this many days of daily training are finished, earlier ones counted in."),
    ] = None,
    debug: DebugOption = False,
) -> None:
    """Run what is due: the batch if it is not finished, then each day whose labels are final."""
    run_due(config, store, as_of or None, max_days)
    _show_summary(store)
    say(*summary_lines(store, "run"))


def _show_summary(store: str) -> None:
    console.print(ledger_table(store))


@app.command()
@clear_errors
def train(
    config: ConfigOption,
    store: StoreOption,
    arm: ArmOption,
    day: Annotated[str, typer.Option(help="Train this day from the day before's checkpoint; else the batch.")] = "",
    debug: DebugOption = False,
) -> None:
    """Train one arm on examples that are there, as the pipelines do; also under torchrun, with tables spread over GPUs.

    torchrun --no-python --nproc-per-node 8 afterclick train --config own.yaml --store s3://bucket/store --arm baseline
    """
    from components.common.store_format import claim_format
    from components.train.one_model import train_batch, train_day
    from pipelines.config import load_config

    loaded = load_config(config)
    schedule, dataset = loaded.schedule, loaded.dataset
    if arm not in loaded.arms:
        raise InputError(f"--arm {arm}: {config} has the arms {', '.join(loaded.arms)}")
    recipe = loaded.arms[arm]
    claim_format(Store(store))
    if day and schedule.train_immature:
        raise InputError("schedule.train_immature: the pipelines choose a day's labels; use `afterclick run`")
    if day:
        chosen = parse_day(day, "--day")
        digest = train_day(store, arm, loaded.features, recipe, chosen, dataset.open_day(chosen, -1))
    else:
        last = dataset.open_day(schedule.first_day, schedule.num_batch_days - 1)
        digest = train_batch(store, arm, loaded.features, recipe, dataset.open_days(schedule.first_day, last))
    if os.environ.get("RANK", "0") == "0":
        say(f"train.checkpoint: {digest}")


@app.command()
@clear_errors
def compile(
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder for the YAML files.")] = Path(
        "build/pipelines"
    ),
    config: Annotated[
        str,
        typer.Option(
            "--config", "-c", help="Write this configuration to the store; its address is config_uri's default."
        ),
    ] = "",
    store: Annotated[str, typer.Option("--store", "-s", help="Default of store_uri, e.g. a bucket.")] = "",
    manifests: Annotated[
        bool, typer.Option("--manifests", help="As Pipeline and PipelineVersion objects for `kubectl apply`.")
    ] = False,
    debug: DebugOption = False,
) -> None:
    """Write the pipelines' YAML for Kubeflow; pods get what pipelines/resources.py and the section `cluster` say."""
    from pipelines.cluster import DEFAULT_CLUSTER
    from pipelines.compile import compile_pipelines
    from pipelines.config import load_config
    from pipelines.training import SHIPPED_ARMS

    parameters = {"store_uri": store} if store else {}
    if config:
        if not store:
            raise InputError("--config: steps read the configuration from the store; name it with --store")
        loaded = load_config(config)
        parameters["config_uri"] = loaded.write(Store(store))
    cluster, arms = (loaded.cluster, [*loaded.arms]) if config else (DEFAULT_CLUSTER, SHIPPED_ARMS)
    for path in compile_pipelines(output, parameters, cluster, arms, as_manifests=manifests):
        say(str(path))


@app.command()
@clear_errors
def show(
    store: StoreOption = DEMO_STORE,
    tables: Annotated[
        bool, typer.Option("--tables", help="Instead: each embedding table's memory, and the ids it mixes up.")
    ] = False,
    arm: Annotated[str, typer.Option(help="With --tables: of which arm; of the one in production if not given.")] = "",
    as_json: Annotated[bool, typer.Option("--json", help="Everything as one JSON object, for scripts.")] = False,
    debug: DebugOption = False,
) -> None:
    """What is published, the ledger, and the gate's reasons."""
    from cli.inspection import describe_store, open_store

    opened = open_store(store)
    if tables:
        from cli.embedding_tables import describe_tables, production_arm, tables_as_values, tables_table

        arm = arm or production_arm(opened)
        facts = describe_tables(opened, arm)
        print(json.dumps(tables_as_values(facts), indent=2)) if as_json else console.print(tables_table(facts, arm))
        return
    if as_json:
        print(json.dumps(describe_store(store), indent=2))
        return
    _show_summary(store)
    say(*summary_lines(store, "show"))


@app.command()
@clear_errors
def prune(
    config: ConfigOption,
    store: StoreOption,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would be deleted, and why.")] = False,
    debug: DebugOption = False,
) -> None:
    """Delete what the configuration's `retention` no longer keeps, as every run does when it ends."""
    from cli.inspection import open_store
    from components.common.retention import removals
    from components.common.storage import num_bytes, remove
    from pipelines.config import load_config

    chosen, size = removals(open_store(store), load_config(config).retention), 0
    for removal in chosen:
        size += num_bytes(removal.uri)
        say(f"{removal.uri}: {removal.reason}")
        if not dry_run:
            remove(removal.uri)
    say(f"prune.{'would_remove' if dry_run else 'removed'}: {len(chosen)}", f"prune.mb: {size / 1e6:.1f}")


app.command()(pretrained_tables.pretrain)
app.command()(pretrained_tables.neighbours)
app.command()(rollout_commands.rollout)
app.command()(rollout_commands.rollback)
app.command()(log_commands.init)
app.command()(log_commands.check)


def main() -> None:
    """Entry point of the `afterclick` command."""
    try:
        app()
    except BrokenPipeError:
        # Whoever read the output, such as `head`, has seen enough; Python must not write to it when it ends.
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        raise SystemExit(0) from None


if __name__ == "__main__":
    main()
