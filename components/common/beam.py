"""Options of Beam runners."""

from __future__ import annotations

from typing import Annotated

from pydantic import AfterValidator, Field

# DirectRunner tries to download another runner first; Beam takes names in any case.
_WRONG_RUNNERS = ("dask", "bundlebaseddirect", "directrunner", "switchingdirect")


def _check_options(options: tuple[str, ...]) -> tuple[str, ...]:
    given = " ".join(options).lower()
    if "multi_threading" in given:
        raise ValueError("Beam's multi_threading mode loses rows; use multi_processing")
    for name in _WRONG_RUNNERS:
        if f"runner={name}" in given or f"runner {name}" in given:
            raise ValueError(
                f"the Beam runner {name} loses rows or gives wrong results; use FnApiRunner or a cluster's"
            )
    if not any(option.startswith("--runner=") for option in options):
        raise ValueError("name a runner, e.g. --runner=FnApiRunner")
    return options


BeamOptions = Annotated[
    tuple[str, ...],
    Field(description="options of any Beam runner; those that were seen to lose rows are refused"),
    AfterValidator(_check_options),
]
LOCAL_RUNNER = ("--runner=FnApiRunner",)
