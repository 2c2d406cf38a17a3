"""What the commands share: options, output, and errors as one line."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Annotated, Any

import typer
from rich.console import Console

from components.common.errors import InputError

console = Console()

ConfigOption = Annotated[
    str, typer.Option("--config", "-c", help="A YAML file, or the name of a shipped configuration.")
]
StoreOption = Annotated[
    str, typer.Option("--store", "-s", help="Folder or fsspec URI that holds everything: logs, examples, registry.")
]
DebugOption = Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")]
CaOption = Annotated[
    str,
    typer.Option(help="File of the CA that servers' certificates must be of; without it, nothing is encrypted."),
]
CertificateOption = Annotated[str, typer.Option(help="File of this client's certificate, where servers ask for one.")]
KeyOption = Annotated[str, typer.Option(help="File of its key.")]
ServerNameOption = Annotated[
    str, typer.Option(help="What the servers' certificates are made out to, where addresses have other names.")
]
DEMO_STORE = "runs/demo"


def say(*lines: str) -> None:
    """Print lines as they are."""
    for line in lines:
        console.print(line, highlight=False, soft_wrap=True, markup=False)


def clear_errors(command: Callable[..., None]) -> Callable[..., None]:
    """Show an error as one line, unless `--debug` asks for the traceback."""

    @wraps(command)
    def wrapped(*args: Any, **kwargs: Any) -> None:
        try:
            command(*args, **kwargs)
        except BrokenPipeError:
            raise
        except (ValueError, OSError, RuntimeError) as error:
            if kwargs.get("debug"):
                raise
            Console(stderr=True).print(f"[bold red]error:[/bold red] {error}", soft_wrap=True, highlight=False)
            raise typer.Exit(1) from error
        except KeyboardInterrupt as error:
            Console(stderr=True).print("stopped; the same command goes on from here")
            raise typer.Exit(130) from error

    return wrapped


def settings_of(chosen: list[str] | None, option: str = "--set") -> dict[str, str]:
    """Settings that are given as NAME=VALUE, by name.

    Raises:
        InputError: If one is not.
    """
    pairs = [text.partition("=") for text in chosen or []]
    wrong = [name for name, sign, _ in pairs if not sign]
    if wrong:
        raise InputError(f"{option} {wrong[0]}: expected name=value")
    return {name: value for name, _, value in pairs}
