"""Options of Beam runners."""

from __future__ import annotations

import contextlib
import difflib
import io
from typing import Annotated

from pydantic import AfterValidator, Field

LOCAL_RUNNER = ("--runner=FnApiRunner",)
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
    if options != LOCAL_RUNNER:
        _check_known(options)
    if not any(option.startswith("--runner=") for option in options):
        raise ValueError("name a runner, e.g. --runner=FnApiRunner")
    return options


def _check_known(options: tuple[str, ...]) -> None:
    """Check the options' names, since Beam warns of those that it does not know, and goes on without them.

    A cluster's job server may know more of them than Beam for Python does: there only what resembles a known one is
    refused.
    """
    from apache_beam.options.pipeline_options import PipelineOptions

    said = io.StringIO()
    try:
        with contextlib.redirect_stderr(said):
            parsed = PipelineOptions(list(options))
            known, given = set(parsed.get_all_options()), set(parsed.get_all_options(retain_unknown_options=True))
    except SystemExit as error:
        reason = said.getvalue().strip().splitlines()[-1]
        raise ValueError(f"Beam does not take {list(options)}: {reason}") from error
    is_local = LOCAL_RUNNER[0] in options
    for name in sorted(given - known):
        alike = difflib.get_close_matches(name, known, n=1, cutoff=0.0 if is_local else 0.85)
        if alike:
            raise ValueError(f"Beam has no option --{name}, but --{alike[0]}; correct it, or take it out")


BeamOptions = Annotated[
    tuple[str, ...],
    Field(description="options of any Beam runner; those that were seen to lose rows are refused"),
    AfterValidator(_check_options),
]
