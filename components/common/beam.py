"""Options of Beam runners."""

from __future__ import annotations

from typing import Annotated

from pydantic import AfterValidator, Field


def _check_options(options: tuple[str, ...]) -> tuple[str, ...]:
    if any("multi_threading" in option for option in options):
        raise ValueError("Beam's multi_threading mode loses rows; use multi_processing")
    if any(name in option for option in options for name in ("DaskRunner", "BundleBasedDirectRunner")):
        raise ValueError("this Beam runner gives wrong results; use FnApiRunner, Flink, Dataflow or Spark")
    if not any(option.startswith("--runner=") for option in options):
        raise ValueError("name a runner, e.g. --runner=FnApiRunner")
    return options


BeamOptions = Annotated[
    tuple[str, ...],
    Field(description="options of any Beam runner; those that were seen to lose rows are refused"),
    AfterValidator(_check_options),
]
LOCAL_RUNNER = ("--runner=FnApiRunner",)
