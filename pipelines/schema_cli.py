"""The `afterclick schema` commands."""

from __future__ import annotations

import difflib
from pathlib import Path
from typing import Annotated

import typer

from pipelines.command import DEMO_STORE, ConfigOption, DebugOption, StoreOption, clear_errors, say

app = typer.Typer(
    no_args_is_help=True,
    help="The schema of examples as a reviewed file: infer it once, compare new days with it, relax it on purpose.",
)
SchemaArgument = Annotated[Path, typer.Argument(help="The schema, a .pbtxt file.")]


@app.command()
@clear_errors
def infer(
    output: SchemaArgument,
    config: ConfigOption = "complete_journey",
    store: StoreOption = DEMO_STORE,
    debug: DebugOption = False,
) -> None:
    """Write a schema to review, from the feature list and all days of examples in the store.

    Its drift limits are twice what days differed by. Name the file under `validation.reviewed_schema`.
    """
    from data_validation.review import infer_from_examples
    from data_validation.schema import write_schema
    from pipelines.config import load_config

    settings = load_config(config)
    schema = infer_from_examples(store, settings.features, settings.validation)
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
    from data_validation.anomalies import stopping, warnings
    from data_validation.review import anomalies_by_day
    from data_validation.schema import read_schema
    from pipelines.config import load_config

    found = anomalies_by_day(store, read_schema(str(schema)), load_config(config).validation)
    errors = 0
    for day, anomalies in found.items():
        problems = stopping(anomalies)
        errors += len(problems)
        for text in [*(f"error: {name}: {text}" for name, text in problems.items()), *warnings(anomalies)]:
            say(f"{day} {text}")
    count = sum(len(warnings(anomalies)) for anomalies in found.values())
    say(f"schema.days: {len(found)}", f"schema.errors: {errors}", f"schema.warnings: {count}")
    if errors:
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

    from data_validation.review import relax_to_examples
    from data_validation.schema import read_schema, write_schema
    from pipelines.config import load_config

    before = read_schema(str(schema))
    after = relax_to_examples(store, before, load_config(config).validation)
    texts = [text_format.MessageToString(item).splitlines() for item in (before, after)]
    for line in difflib.unified_diff(texts[0], texts[1], "before", "after", lineterm="", n=6):
        say(line)
    write_schema(str(schema), after)
    say(f"{schema}: {'changed, review the difference above' if before != after else 'fits, nothing changed'}")
