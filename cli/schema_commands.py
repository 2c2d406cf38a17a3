"""The `afterclick schema` commands."""

from __future__ import annotations

import difflib
import logging
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cli.command import DEMO_STORE, ConfigOption, DebugOption, StoreOption, clear_errors, say

if TYPE_CHECKING:
    from tensorflow_metadata.proto.v0.schema_pb2 import Schema

    from pipelines.config import RunConfig

app = typer.Typer(
    no_args_is_help=True,
    help="The schema of examples as a reviewed file: infer it once, compare new days with it, relax it on purpose.",
)


@app.callback()
def _quiet() -> None:
    # Beam's import warns of an optional package of Google Cloud.
    logging.getLogger().setLevel(logging.ERROR)


SchemaArgument = Annotated[Path, typer.Argument(help="The schema, a .pbtxt file.")]


@app.command()
@clear_errors
def infer(
    output: SchemaArgument,
    config: ConfigOption = "complete_journey",
    store: StoreOption = DEMO_STORE,
    force: Annotated[bool, typer.Option("--force", help="Replace the file.")] = False,
    debug: DebugOption = False,
) -> None:
    """Write a schema to review, from the feature list and all days of examples in the store.

    Its drift limits are twice what days differed by. Name the file under `validation.reviewed_schema`.
    """
    from data_validation.examples.review import infer_from_examples
    from data_validation.examples.schema import write_schema
    from pipelines.config import load_config

    if output.exists() and not force:
        raise ValueError(f"{output} is there: relax it with afterclick schema update, or replace it with --force")
    settings = load_config(config, with_schema=False)
    schema = infer_from_examples(store, settings.dataset, settings.features, settings.validation)
    write_schema(str(output), schema)
    say(f"{output}: {len(schema.feature)} columns; review it, then name it under validation.reviewed_schema")


@app.command()
@clear_errors
def diff(
    schema: SchemaArgument,
    config: ConfigOption = "complete_journey",
    store: StoreOption = DEMO_STORE,
    debug: DebugOption = False,
) -> None:
    """Say what the store's days of examples break of a schema; ends with 1 if any of it would stop a run."""
    from data_validation.examples.schema import read_schema
    from pipelines.config import load_config

    settings = load_config(config, with_schema=False)
    if not _compare(store, settings, read_schema(str(schema))):
        raise typer.Exit(1)


@app.command()
@clear_errors
def update(
    schema: SchemaArgument,
    config: ConfigOption = "complete_journey",
    store: StoreOption = DEMO_STORE,
    debug: DebugOption = False,
) -> None:
    """Relax a schema until the store's days of examples fit it, and show what changed, to be reviewed."""
    from google.protobuf import text_format

    from data_validation.examples.review import relax_to_examples
    from data_validation.examples.schema import read_schema, write_schema
    from pipelines.config import load_config

    before = read_schema(str(schema))
    settings = load_config(config, with_schema=False)
    after = relax_to_examples(store, settings.dataset, before, settings.validation)
    texts = [text_format.MessageToString(item).splitlines() for item in (before, after)]
    for line in difflib.unified_diff(texts[0], texts[1], "before", "after", lineterm="", n=6):
        say(line)
    write_schema(str(schema), after)
    say(f"{schema}: {'changed, review the difference above' if before != after else 'nothing changed'}")
    _compare(store, settings, after)


def _compare(store: str, settings: RunConfig, schema: Schema) -> bool:
    """Print what every day breaks of a schema; whether nothing of it would stop a run."""
    from data_validation.examples.anomalies import stopping, warnings
    from data_validation.examples.review import anomalies_by_day

    anomalies_of = anomalies_by_day(store, settings.dataset, schema, settings.validation)
    errors = 0
    for day, anomalies in anomalies_of.items():
        problems = stopping(anomalies)
        errors += len(problems)
        for text in [*(f"error: {name}: {text}" for name, text in problems.items()), *warnings(anomalies)]:
            say(f"{day} {text}")
    count = sum(len(warnings(anomalies)) for anomalies in anomalies_of.values())
    say(f"schema.days: {len(anomalies_of)}", f"schema.errors: {errors}", f"schema.warnings: {count}")
    return not errors
